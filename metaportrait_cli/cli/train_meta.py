"""`metaportrait train meta`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli.console import print_result, reporting
from metaportrait_cli.cli.train import told


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

        from metaportrait_cli.render.compact import region_networks  # noqa: PLC0415
        from metaportrait_cli.training.meta import MetaTraining, train_meta  # noqa: PLC0415
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.training.place import RunOptions  # noqa: PLC0415
        from metaportrait_cli.training.regions import learnt_patches  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        card = train_meta(
            MetaTraining(steps=steps, inner=inner, people=people, rate=rate),
            base,
            region_networks(base),
            learnt_patches(regions),
            output,
            options=RunOptions(
                device=device, minutes=math.inf if minutes is None else minutes, save_minutes=1
            ),
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            on_record=lambda record: reporter.say(told(record)),
        )
        print_result(output, card, as_json=as_json)
