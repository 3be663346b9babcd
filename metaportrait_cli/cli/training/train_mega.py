"""`metaportrait train mega`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait train gaze prepared -o gaze
metaportrait train mega prepared -o run --gaze gaze/last.safetensors --minutes 60
metaportrait animate --weights run/last.safetensors -s me.jpg -d clip.mp4"""


def command(
    *,
    data: training.Data,
    output: training.Output,
    config: Annotated[
        Literal["paper", "lite"],
        typer.Option(
            help="The paper's networks at 512 pixels, for 300000 steps of 16 samples, or narrow"
            " ones at 256, for 150000 of 8.",
            rich_help_panel=BASIC,
        ),
    ] = "lite",
    gaze: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Made by: metaportrait train gaze. Without it eyes count as all else.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    cosine: Annotated[
        bool,
        typer.Option(
            "--cosine/--no-cosine",
            help="Keep the driver's looks out of expressions by a second pair; or don't, for half"
            " of the work.",
            rich_help_panel=BASIC,
        ),
    ] = True,
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
    """Train MegaPortraits: a portrait as a volume that turns, under expressions read from the
    driver's pictures."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.training.mega.base import MegaTraining, train_mega  # noqa: PLC0415
        from metaportrait_cli.training.mega.gaze import EyeLoss  # noqa: PLC0415
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        chosen = MegaTraining.paper() if config == "paper" else MegaTraining.lite()
        chosen = training.of_length(chosen, steps=steps, batch=batch)
        card = train_mega(
            chosen if cosine else chosen.without_cosine(),
            data,
            output,
            options=training.run_options(
                minutes=minutes, device=device, precision=precision, workers=workers
            ),
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            eyes=None if gaze is None else EyeLoss.load(gaze),
            on_record=lambda record: reporter.say(training.told(record)),
            on_progress=reporter.progress,
        )
        training.finish(reporter, output, card, as_json=as_json)
