"""`metaportrait train meta`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait train regions prepared -o run
metaportrait train meta run/last.safetensors run -o meta --minutes 30"""


def command(
    *,
    base: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="A file that holds the region networks.",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ],
    regions: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder of their training: metaportrait train regions",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ],
    output: training.Output,
    steps: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Outer steps of the whole training.", rich_help_panel=BASIC
        ),
    ] = 300,
    inner: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Steps of learning one person.", rich_help_panel=BASIC
        ),
    ] = 20,
    people: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="People learnt in an outer step.", rich_help_panel=BASIC
        ),
    ] = 2,
    rate: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Share of the way to the learnt weights, at first.",
            rich_help_panel=BASIC,
        ),
    ] = 0.5,
    minutes: training.Minutes = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Find a start from which `personalize` learns a person in fewer steps (Reptile)."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.render.compact import region_networks  # noqa: PLC0415
        from metaportrait_cli.training.meta import MetaTraining, train_meta  # noqa: PLC0415
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.training.regions import learnt_patches  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        card = train_meta(
            MetaTraining(steps=steps, inner=inner, people=people, rate=rate),
            base,
            region_networks(base),
            learnt_patches(regions),
            output,
            # A step is many of the others'.
            options=training.run_options(
                minutes=minutes, device=device, log_every=1, save_minutes=1.0
            ),
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            on_record=lambda record: reporter.say(training.told(record)),
        )
        training.finish(reporter, output, card, as_json=as_json)
