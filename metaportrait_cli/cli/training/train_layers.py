"""`metaportrait train layers`."""

from __future__ import annotations

from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait train layers prepared -o run --start-from compact.safetensors
metaportrait train layers prepared -o run --batch 16 --workers 8 --minutes 10"""


def command(
    *,
    data: training.Data,
    output: training.Output,
    start_from: training.StartFrom = None,
    steps: training.Steps = 2000,
    batch: training.Batch = 8,
    lr: training.LearningRate = 4e-4,
    judge_every: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Steps after which people held out are judged.",
            rich_help_panel=BASIC,
        ),
    ] = 250,
    minutes: training.Minutes = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: training.Precision = "fp32",
    workers: training.Workers = 0,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train the network that corrects how a portrait in layers moves, and what of it is seen."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.training.layered_warping import (  # noqa: PLC0415
            LayeredTraining,
            train_layered,
        )
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        card = train_layered(
            LayeredTraining(steps=steps, batch=batch, lr=lr),
            data,
            output,
            options=training.run_options(
                minutes=minutes,
                device=device,
                precision=precision,
                workers=workers,
                judge_every=judge_every,
            ),
            start_from=start_from,
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            on_record=lambda record: reporter.say(training.told(record)),
        )
        training.finish(reporter, output, card, as_json=as_json)
