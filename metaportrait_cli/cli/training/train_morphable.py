"""`metaportrait train morphable`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import print_result, reporting, skipped
from metaportrait_cli.cli.options import BASIC

EXAMPLES = "metaportrait train morphable tracks/ -o morphable.safetensors"


def command(
    *,
    tracks: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Landmark tracks of many people, .npz files with `landmarks` (T, 478, 3) in pixels"
            " and, where known, `identity` (the person's name), `frame` (T,), the frames' numbers,"
            " and `blendshapes` (T, 52).",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ],
    output: shared.OutputFile = Path("morphable.safetensors"),
    identity_size: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Identity coefficients.", rich_help_panel=BASIC),
    ] = 60,
    expression_size: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Expression coefficients.", rich_help_panel=BASIC),
    ] = 50,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    as_json: shared.AsJson = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Learn the face morphable model from landmark tracks of many people."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        if skip_existing and skipped(output, reporter, as_json=as_json):
            return
        from metaportrait_cli.training.morphable.learn import ROUNDS, train_morphable  # noqa: PLC0415

        done = train_morphable(
            tracks,
            output,
            identity_size=identity_size,
            expression_size=expression_size,
            overwrite=overwrite,
            on_round=lambda number: reporter.say(f"round {number} of {ROUNDS}"),
        )
        reporter.say(
            f"{done.people} people, {done.frames} frames ({done.dropped} left out); explained:"
            f" identity {done.identity_explained[-1]:.1%},"
            f" expression {done.expression_explained[-1]:.1%}"
        )
        report = {
            "output": str(output),
            "people": done.people,
            "frames": done.frames,
            "dropped": done.dropped,
            "identity_explained": round(float(done.identity_explained[-1]), 4),
            "expression_explained": round(float(done.expression_explained[-1]), 4),
        }
        print_result(output, report, as_json=as_json)
