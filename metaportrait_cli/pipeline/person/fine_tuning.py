"""Few-shot weights learn a person: steps by the number of pictures, and which of them are kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.landmark_image import landmark_image
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.squeezenet import SqueezeNet
from metaportrait_cli.pipeline.person.contest import Contest, Yardstick
from metaportrait_cli.pipeline.person.portrait_file import Portrait
from metaportrait_cli.pipeline.person.recording import Look, Recording
from metaportrait_cli.progress import Progress
from metaportrait_cli.render.protocol import Renderer, Styled
from metaportrait_cli.training.fewshot_person import (
    FewShotNetworks,
    FewShotPersonConfig,
    FewShotStage,
    PersonPictures,
    steps_for,
)
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.weights import bundled_path

MOST_PICTURES = 64
TRIED = (0.25, 0.5, 1.0)
"""Shares of the steps after which the generator is judged: people differ in how many they bear"""


def fine_tuned(
    portrait: Portrait,
    renderer: Styled,
    looks: Sequence[Look],
    crops: Sequence[Crop],
    contest: Contest,
    *,
    seconds: float,
    seed: int,
    on_progress: Progress,
) -> tuple[Portrait, dict[str, Any]]:
    """The portrait with the generator that serves the frames kept aside best, and what was done.

    Where nothing is kept aside it is that of the last step. `seconds` may end it before.
    """
    networks = FewShotNetworks.load(renderer.file)
    perceptual = PerceptualLoss.load(bundled_path("mobilenet")).to(renderer.device)
    spread = np.linspace(0, len(looks) - 1, min(len(looks), MOST_PICTURES)).astype(int)
    known = pictures_of(
        [looks[n] for n in spread],
        [crops[n] for n in spread],
        size=networks.generator.config.size,
        schema=networks.generator.config.landmarks,
    )
    stage = FewShotStage(
        networks,
        known,
        config=FewShotPersonConfig(),
        perceptual=perceptual,
        device=renderer.device,
        seed=seed,
        # What the renderer will make of the portrait's own views.
        embedding=renderer.embedding(portrait.source),
    )
    steps = steps_for(len(known.pictures))
    due = {max(1, round(share * steps)) for share in TRIED}
    kept, started = 0, time.monotonic()
    while stage.step < steps:
        stage.advance()
        spent = time.monotonic() - started
        on_progress("adapt", round(spent), round(min(seconds, spent * steps / stage.step)))
        late = spent >= seconds
        if stage.step in due or late:
            own = renderer.with_generator(stage.generator)
            lends = portrait.source.lends if portrait.source.others else None
            if not contest.trials or contest.enter(own, lends=lends, title="weights"):
                kept, portrait = stage.step, replace(portrait, deltas=stage.deltas())
        if late:
            break
    return portrait, {
        "steps": stage.step,
        "planned": steps,
        "kept": kept,
        "pictures": len(known.pictures),
    }


def set_apart(
    known: Recording,
    canvas: int,
    contest: Contest,
    renderer: Renderer,
    *,
    features: SqueezeNet,
    identity: IdentityNetwork,
) -> tuple[list[int], Contest]:
    """Which looks are learnt from, and what judges: frames of a video kept aside, or the last of at
    least three photos."""
    numbers = list(range(len(known.looks)))
    if known.kind == "video" or not contest.trials:
        return numbers, contest
    numbers.remove(max(n for n in numbers if n != canvas))
    last = Yardstick(contest.trials[-1:], features=features, identity=identity)
    return numbers, Contest(last, renderer)


def pictures_of(
    looks: Sequence[Look], crops: Sequence[Crop], *, size: int, schema: str
) -> PersonPictures:
    """Looks cut by their crops, at the generator's size."""
    points = [crop.to_crop(look.points, size) for look, crop in zip(looks, crops, strict=True)]
    pictures = [crop.cut(look.picture(), size) for look, crop in zip(looks, crops, strict=True)]
    drawn = [landmark_image(each, side=size, size=size, schema=schema) for each in points]

    def planes(images: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))

    return PersonPictures(planes(pictures), planes(drawn), torch.from_numpy(np.stack(points)))
