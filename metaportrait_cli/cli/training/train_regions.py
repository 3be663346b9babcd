"""`metaportrait train regions`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = """\
metaportrait train regions prepared -o run
metaportrait train regions prepared -o run --only mouth --minutes 10
metaportrait train regions prepared -o new --critic --start-from run/last.safetensors"""


def command(
    *,
    data: training.Data,
    output: training.Output,
    start_from: training.StartFrom = None,
    only: Annotated[
        Literal["mouth", "eyes"] | None,
        typer.Option(help="Train one of the two networks.", rich_help_panel=BASIC),
    ] = None,
    critic: Annotated[
        bool,
        typer.Option(
            "--critic",
            help="Let a second network tell painted mouths from real ones; for mouths that have"
            " been trained without, see --start-from.",
            rich_help_panel=BASIC,
        ),
    ] = False,
    steps: training.Steps = 6000,
    batch: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Mouths, and as many eyes, a step.", rich_help_panel=BASIC
        ),
    ] = 24,
    lr: training.LearningRate = 6e-4,
    minutes: training.Minutes = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: training.Precision = "auto",
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train the networks that repaint mouths and eyes, on data prepared at 512."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.face.regions import KINDS  # noqa: PLC0415
        from metaportrait_cli.networks.identity import IdentityNetwork  # noqa: PLC0415
        from metaportrait_cli.render.mouths.teeth import bundled_teeth  # noqa: PLC0415
        from metaportrait_cli.training.critic import CriticTraining  # noqa: PLC0415
        from metaportrait_cli.training.perceptual import PerceptualLoss  # noqa: PLC0415
        from metaportrait_cli.training.regions import RegionTraining, train_regions  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415
        from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

        kinds = tuple(kind for kind in KINDS if only in (None, kind))
        identity = load_network(IdentityNetwork, bundled_path("identity"), part="identity")
        card = train_regions(
            RegionTraining(
                kinds=kinds,
                steps=steps,
                batch=batch,
                lr=lr,
                critic=CriticTraining() if critic else None,
            ),
            data,
            output,
            options=training.run_options(minutes=minutes, device=device, precision=precision),
            identity=identity.float(),
            teeth=bundled_teeth(),
            start_from=start_from,
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            on_record=lambda record: reporter.say(training.told(record)),
            on_progress=reporter.progress,
        )
        training.finish(reporter, output, card, as_json=as_json)
