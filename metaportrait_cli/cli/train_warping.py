"""`metaportrait train warping`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli.console import print_result, reporting
from metaportrait_cli.cli.train import told


def command(
    *,
    data: Annotated[Path, typer.Argument(help="Folder made by: metaportrait prepare")],
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
    size: Annotated[int, typer.Option(help="Side of the compared pictures in pixels.")] = 128,
    steps: Annotated[int, typer.Option(help="Length of the whole training.")] = 10_000,
    batch: Annotated[int, typer.Option(help="Samples a step and process.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 8e-4,
    start_from: Annotated[
        Path | None, typer.Option(help="Weights of an earlier run of the same network.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; start again to go on.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16.")] = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: minutes, then faster.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that make samples.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run card on stdout instead of the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Train the network that corrects the analytic flow, on prepared data."""
    with reporting(quiet=quiet) as reporter:
        import math  # noqa: PLC0415

        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.training.place import RunOptions  # noqa: PLC0415
        from metaportrait_cli.training.warping import WarpingTraining, train_warping  # noqa: PLC0415

        card = train_warping(
            WarpingTraining(size=size, steps=steps, batch=batch, lr=lr),
            data,
            output,
            options=RunOptions(
                device=device,
                precision=precision,
                compile=compile_,
                workers=workers,
                minutes=math.inf if minutes is None else minutes,
            ),
            start_from=start_from,
            perceptual=PerceptualLoss.load(features) if features else None,
            on_record=lambda record: reporter.say(told(record)),
        )
        print_result(output, card, as_json=as_json)
