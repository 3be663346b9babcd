"""`metaportrait train regions`."""

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
    steps: Annotated[int, typer.Option(help="Length of the whole training.")] = 6000,
    batch: Annotated[int, typer.Option(help="Mouths, and as many eyes, a step.")] = 24,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 6e-4,
    only: Annotated[str | None, typer.Option(help="mouth or eyes; both by default.")] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Weights of an earlier run of the same networks.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time; start again to go on.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run card on stdout instead of the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Train the networks that repaint mouths and eyes on data prepared at 512."""
    with reporting(quiet=quiet) as reporter:
        import math  # noqa: PLC0415

        from metaportrait_cli.errors import UsageError  # noqa: PLC0415
        from metaportrait_cli.face.regions import KINDS  # noqa: PLC0415
        from metaportrait_cli.networks.identity import IdentityNetwork  # noqa: PLC0415
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.training.place import RunOptions  # noqa: PLC0415
        from metaportrait_cli.training.regions import (  # noqa: PLC0415
            RegionTraining,
            train_regions,
        )
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415
        from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

        kinds = tuple(kind for kind in KINDS if only in (None, kind))
        if not kinds:
            raise UsageError(f"--only {only} is neither mouth nor eyes")
        card = train_regions(
            RegionTraining(kinds=kinds, steps=steps, batch=batch, lr=lr),
            data,
            output,
            identity=load_network(
                IdentityNetwork, bundled_path("identity"), part="identity"
            ).float(),
            perceptual=PerceptualLoss.load(features) if features else None,
            options=RunOptions(
                device=device,
                precision=precision,
                minutes=math.inf if minutes is None else minutes,
            ),
            start_from=start_from,
            on_record=lambda record: reporter.say(told(record)),
            on_progress=reporter.progress,
        )
        print_result(output, card, as_json=as_json)
