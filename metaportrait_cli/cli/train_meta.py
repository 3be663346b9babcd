"""`metaportrait train meta`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli.console import print_result, reporting


def command(
    *,
    base: Annotated[Path, typer.Argument(help="Weights that hold the region networks.")],
    regions: Annotated[
        Path, typer.Argument(help="Folder of their training: metaportrait train regions")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; an earlier one goes on.")
    ],
    steps: Annotated[int, typer.Option(help="Outer steps of the whole training.")] = 300,
    inner: Annotated[int, typer.Option(help="Steps of learning one person.")] = 20,
    people: Annotated[int, typer.Option(help="People learnt in an outer step.")] = 2,
    rate: Annotated[
        float, typer.Option(help="Share of the way to the learnt weights, at first.")
    ] = 0.5,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; start again to go on.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run card on stdout instead of the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Find a start from which `personalize` learns a person in fewer steps (Reptile)."""
    with reporting(quiet=quiet) as reporter:
        import math  # noqa: PLC0415

        import torch  # noqa: PLC0415

        from metaportrait_cli.render.compact import region_networks  # noqa: PLC0415
        from metaportrait_cli.training.meta import MetaConfig, train_meta  # noqa: PLC0415
        from metaportrait_cli.training.perceptual import (  # noqa: PLC0415
            MobileNetFeatures,
            PerceptualLoss,
        )
        from metaportrait_cli.training.regions import learnt_patches  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        found = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = found if device == "auto" else device
        card = train_meta(
            MetaConfig(steps=steps, inner=inner, people=people, rate=rate),
            base,
            region_networks(base),
            learnt_patches(regions),
            output,
            perceptual=PerceptualLoss(MobileNetFeatures.load(bundled_path("mobilenet"))).to(chosen),
            device=chosen,
            minutes=math.inf if minutes is None else minutes,
            on_report=lambda record: reporter.say(json.dumps(record)),
        )
        print_result(output, card, as_json=as_json)
