"""`metaportrait train mega-hr`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait prepare photos/ -o photos1024 --size 1024
metaportrait train mega-hr run/last.safetensors photos1024 -o high --config paper"""


def command(
    *,
    base: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Made by: metaportrait train mega",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ],
    data: training.Data,
    output: training.Output,
    config: Annotated[
        Literal["paper", "lite"],
        typer.Option(
            help="The paper's network, to 1024 pixels, for 50000 steps of 16 samples, or a narrow"
            " one to 512, of 8.",
            rich_help_panel=BASIC,
        ),
    ] = "lite",
    steps: training.OwnSteps = None,
    batch: training.OwnBatch = None,
    minutes: training.Minutes = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: training.Precision = "auto",
    workers: training.Workers = 0,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train MegaPortraits' high resolution on photos: twice the side of what the base paints."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.training.mega.high import (  # noqa: PLC0415
            MegaHighTraining,
            digest,
            train_mega_high,
        )

        chosen = MegaHighTraining.paper() if config == "paper" else MegaHighTraining.lite()
        card = train_mega_high(
            training.of_length(replace(chosen, base=digest(base)), steps=steps, batch=batch),
            base,
            data,
            output,
            options=training.run_options(
                minutes=minutes, device=device, precision=precision, workers=workers
            ),
            on_record=lambda record: reporter.say(training.told(record)),
            on_progress=reporter.progress,
        )
        training.finish(reporter, output, card, as_json=as_json)
