"""`metaportrait train fewshot`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait train fewshot prepared -o run --config lite --minutes 60
metaportrait animate --weights run/last.safetensors -s a.jpg -s b.jpg -d clip.mp4"""


def command(
    *,
    data: training.Data,
    output: training.Output,
    config: Annotated[
        Literal["paper", "lite"],
        typer.Option(
            help="The paper's networks at 256 pixels, for 400000 steps of 2 episodes, or narrow"
            " ones at 128, for 100000 of 8.",
            rich_help_panel=BASIC,
        ),
    ] = "lite",
    feed_forward: Annotated[
        bool,
        typer.Option(
            "--feed-forward",
            help="Without the match loss, which fine-tuning to a person rests on.",
            rich_help_panel=BASIC,
        ),
    ] = False,
    landmarks: Annotated[
        Literal["478", "68"],
        typer.Option(
            help="Points that are drawn: all, irises too, or the paper's.",
            rich_help_panel=BASIC,
        ),
    ] = "478",
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
    """Train few-shot talking heads: painted from landmarks, in the likeness of any number of
    pictures of a person."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.training.fewshot import FewShotTraining, train_fewshot  # noqa: PLC0415
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        chosen = FewShotTraining.paper() if config == "paper" else FewShotTraining.lite()
        model = replace(chosen.model, landmarks=f"lines{landmarks}")
        chosen = training.of_length(replace(chosen, model=model), steps=steps, batch=batch)
        card = train_fewshot(
            chosen.feed_forward() if feed_forward else chosen,
            data,
            output,
            options=training.run_options(
                minutes=minutes, device=device, precision=precision, workers=workers
            ),
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            on_record=lambda record: reporter.say(training.told(record)),
        )
        training.finish(reporter, output, card, as_json=as_json)
