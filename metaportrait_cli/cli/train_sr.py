"""`metaportrait train sr`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli.console import print_result, reporting
from metaportrait_cli.cli.train import told


def command(
    *,
    data: Annotated[Path, typer.Argument(help="Folder made by: metaportrait prepare --runs 3")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; an earlier one goes on.")
    ],
    features: Annotated[
        Path | None,
        typer.Option(
            help="MobileNetV2 weights (torchvision's layout) for the perceptual loss; without"
            " them only pixels are compared."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Length of the whole training.")] = 5000,
    batch: Annotated[int, typer.Option(help="Samples a step.")] = 4,
    patch: Annotated[int, typer.Option(help="Side of the windows learnt from, small pixels.")] = 48,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 5e-4,
    perceptual: Annotated[float, typer.Option(help="Weight of the perceptual loss.")] = 0.8,
    steady: Annotated[float, typer.Option(help="Weight of the loss on changes in time.")] = 2.0,
    start_from: Annotated[
        Path | None, typer.Option(help="Weights of an earlier run of the same network.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; start again to go on.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that make samples.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run card on stdout instead of the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Train the compact temporal super-resolution on prepared runs of frames."""
    with reporting(quiet=quiet) as reporter:
        import math  # noqa: PLC0415

        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.training.place import RunOptions  # noqa: PLC0415
        from metaportrait_cli.training.sr import (  # noqa: PLC0415
            SRTraining,
            SRWeights,
            train_sr,
        )

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
            options=RunOptions(
                device=device,
                precision=precision,
                workers=workers,
                minutes=math.inf if minutes is None else minutes,
            ),
            start_from=start_from,
            perceptual=PerceptualLoss.load(features) if features else None,
            on_record=lambda record: reporter.say(told(record)),
        )
        print_result(output, card, as_json=as_json)
