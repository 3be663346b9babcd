"""`metaportrait train base`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaportrait_cli.cli.console import print_result, reporting

if TYPE_CHECKING:
    from metaportrait_cli.training.config import StepReport


class NetworkSize(StrEnum):
    """Named configs of the compact model."""

    DEFAULT = "default"
    SMALL = "small"


class Stage(StrEnum):
    """What is trained, see `BaseConfig.stage`."""

    WARP = "warp"
    ALL = "all"


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
    network: Annotated[
        NetworkSize, typer.Option(help="Config of the network.")
    ] = NetworkSize.DEFAULT,
    stage: Annotated[
        Stage, typer.Option(help="'warp' trains the flow alone, to start 'all' from.")
    ] = Stage.ALL,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 256,
    steps: Annotated[int, typer.Option(help="Length of the whole training.")] = 40_000,
    batch: Annotated[int, typer.Option(help="Samples a step and process.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 2e-4,
    adversarial_from: Annotated[
        float, typer.Option(help="Share of the steps after which the discriminator joins.")
    ] = 0.6,
    start_from: Annotated[
        Path | None, typer.Option(help="Weights of an earlier run of the same network.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; start again to go on.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    bf16: Annotated[bool, typer.Option(help="Mixed precision.")] = True,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: minutes, then faster.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that make samples.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run card on stdout instead of the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Train the compact warping and refinement networks on prepared data."""
    with reporting(quiet=quiet) as reporter:
        import math  # noqa: PLC0415
        from dataclasses import replace  # noqa: PLC0415

        import torch  # noqa: PLC0415

        from metaportrait_cli.networks.compact import CompactConfig  # noqa: PLC0415
        from metaportrait_cli.networks.identity import IdentityNetwork  # noqa: PLC0415
        from metaportrait_cli.training.base import train_base  # noqa: PLC0415
        from metaportrait_cli.training.config import BaseConfig, RunOptions  # noqa: PLC0415
        from metaportrait_cli.training.perceptual import (  # noqa: PLC0415
            MobileNetFeatures,
            PerceptualLoss,
        )
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415
        from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

        def show(report: StepReport) -> None:
            terms = " ".join(f"{name} {value:.4g}" for name, value in report.terms.items())
            reporter.say(f"step {report.step}: {terms} ({report.seconds_per_step:.3f} s a step)")

        model = CompactConfig.small() if network is NetworkSize.SMALL else CompactConfig()
        config = BaseConfig(
            model=replace(model, image_size=size),
            stage=stage.value,
            steps=steps,
            batch=batch,
            lr=lr,
            adversarial_from=adversarial_from,
        )
        found = "cuda" if torch.cuda.is_available() else "cpu"
        card = train_base(
            config,
            data,
            output,
            options=RunOptions(
                device=found if device == "auto" else device,
                bf16=bf16,
                compile=compile_,
                workers=workers,
                minutes=math.inf if minutes is None else minutes,
            ),
            start_from=start_from,
            perceptual=PerceptualLoss(MobileNetFeatures.load(features)) if features else None,
            identity=load_network(IdentityNetwork, bundled_path("identity"), part="identity"),
            on_report=show,
            on_judged=lambda step, scores: reporter.say(f"step {step}: {json.dumps(scores)}"),
        )
        print_result(output, card, as_json=as_json)
