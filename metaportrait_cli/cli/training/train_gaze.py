"""`metaportrait train gaze`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = "metaportrait train gaze prepared -o gaze --minutes 20"


def command(
    *,
    data: training.Data,
    output: training.Output,
    config: Annotated[
        Literal["paper", "lite"],
        typer.Option(
            help="VGG-16, for 56000 steps, or one an eighth as wide, for 6000.",
            rich_help_panel=BASIC,
        ),
    ] = "lite",
    steps: training.OwnSteps = None,
    minutes: training.Minutes = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: training.Precision = "auto",
    workers: training.Workers = 0,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train the network that tells how eyes look, for `train mega`."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.training.mega.gaze import GazeTraining, train_gaze  # noqa: PLC0415

        chosen = GazeTraining.paper() if config == "paper" else GazeTraining.lite()
        card = train_gaze(
            training.of_length(chosen, steps=steps),
            data,
            output,
            options=training.run_options(
                minutes=minutes, device=device, precision=precision, workers=workers
            ),
            on_record=lambda record: reporter.say(training.told(record)),
        )
        training.finish(reporter, output, card, as_json=as_json)
