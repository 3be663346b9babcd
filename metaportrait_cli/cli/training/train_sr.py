"""`metaportrait train sr`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait prepare clips/ -o runs --runs 3
metaportrait train sr runs -o run --minutes 60"""


def command(
    *,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Made by: metaportrait prepare --runs 3",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ],
    output: training.Output,
    start_from: training.StartFrom = None,
    steps: training.Steps = 5000,
    batch: training.Batch = 4,
    patch: Annotated[
        int,
        typer.Option(
            min=8,
            metavar="N",
            help="Side of the windows learnt from, in small pixels.",
            rich_help_panel=BASIC,
        ),
    ] = 48,
    lr: training.LearningRate = 5e-4,
    perceptual: Annotated[
        float,
        typer.Option(metavar="X", help="Weight of the perceptual loss.", rich_help_panel=BASIC),
    ] = 0.8,
    steady: Annotated[
        float,
        typer.Option(
            metavar="X", help="Weight of the loss on changes in time.", rich_help_panel=BASIC
        ),
    ] = 2.0,
    minutes: training.Minutes = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: training.Precision = "auto",
    workers: training.Workers = 0,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train the compact temporal super-resolution on prepared runs of frames."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.training.sr import SRTraining, SRWeights, train_sr  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        card = train_sr(
            SRTraining(
                weights=SRWeights(perceptual=perceptual, steady=steady),
                steps=steps,
                batch=batch,
                patch=patch,
                lr=lr,
            ),
            data,
            output,
            options=training.run_options(
                minutes=minutes, device=device, precision=precision, workers=workers
            ),
            start_from=start_from,
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            on_record=lambda record: reporter.say(training.told(record)),
        )
        training.finish(reporter, output, card, as_json=as_json)
