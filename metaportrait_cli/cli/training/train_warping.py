"""`metaportrait train warping`."""

from __future__ import annotations

from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC, MACHINE
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait train warping prepared -o run
metaportrait train warping prepared -o run --batch 32 --workers 8 --minutes 10"""


def command(
    *,
    data: training.Data,
    output: training.Output,
    start_from: training.StartFrom = None,
    size: Annotated[
        int,
        typer.Option(
            min=32,
            metavar="N",
            help="Side in pixels of the pictures that are compared.",
            rich_help_panel=BASIC,
        ),
    ] = 128,
    steps: training.Steps = 10_000,
    batch: training.Batch = 16,
    lr: training.LearningRate = 8e-4,
    minutes: training.Minutes = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: training.Precision = "auto",
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network first: minutes, then faster steps.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
    workers: training.Workers = 0,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train the network that corrects the flow of hair, shoulders and background."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.training.warping import WarpingTraining, train_warping  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        card = train_warping(
            WarpingTraining(size=size, steps=steps, batch=batch, lr=lr),
            data,
            output,
            options=training.run_options(
                minutes=minutes,
                device=device,
                precision=precision,
                compile=compile_,
                workers=workers,
            ),
            start_from=start_from,
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            on_record=lambda record: reporter.say(training.told(record)),
        )
        training.finish(reporter, output, card, as_json=as_json)
