"""From a person's looks to adapted region networks: samples before the clock, steps within it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.regions import Kind, OwnRegions
from metaportrait_cli.face.source import Source
from metaportrait_cli.motion.likeness import Likeness, Looks, squared_distances
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.pipeline.person.recording import Look
from metaportrait_cli.progress import Progress
from metaportrait_cli.render.mouths.teeth import bundled_teeth
from metaportrait_cli.render.protocol import Adaptable
from metaportrait_cli.render.views import EYES, MOUTH
from metaportrait_cli.training.adapt import Adaptation, AdaptConfig
from metaportrait_cli.training.data.patches import Patches, PatchList
from metaportrait_cli.training.perceptual import PerceptualLoss

SIDE = 384
"""Of the pictures that patches are cut from: a mouth there is as large as its patch."""
MOST_TARGETS = 120
NEAREST_VIEWS = 2
"""Views that each picture is learnt from, beside the canvas: those that the atlas would use."""
LIKENESS: dict[Kind, Likeness] = {"mouth": MOUTH, "eyes": EYES}
FIRST_SNAPSHOT = 25
CANDIDATES = 3


@dataclass(frozen=True)
class Snapshot:
    """Adapted networks after so many steps."""

    step: int
    networks: dict[Kind, RegionNetwork]
    deltas: dict[str, Tensor]


def person_patches(
    views: Sequence[Source],
    looks: Sequence[Look],
    crops: Sequence[Crop],
    *,
    embedding: NDArray[np.float32],
    renderer: Adaptable,
    on_progress: Progress,
) -> dict[Kind, Patches]:
    """Mouths and eyes of the looks (with their crops), each as warped from the canvas, which is
    the first view, and from the views most like it; `embedding` (128,) is the person's."""
    samples = PatchList()
    sessions = [renderer.open_warp(view, size=SIDE) for view in views]
    faces = [view.landmarks(SIDE) for view in views]
    own = [OwnRegions(s.crop, face) for s, face in zip(sessions, faces, strict=True)]
    painter = bundled_teeth().of_person(
        (s.crop, face) for s, face in zip(sessions, faces, strict=True)
    )
    teeth = [painter.open(s.crop, face) for s, face in zip(sessions, faces, strict=True)]
    atlas = Looks.of(np.stack(faces), faces[0])
    spread = np.linspace(0, len(looks) - 1, min(len(looks), MOST_TARGETS)).astype(int)
    for done, n in enumerate(spread.tolist(), 1):
        truth = crops[n].cut(looks[n].picture(), SIDE)
        points = crops[n].to_crop(looks[n].points, SIDE)
        seen = Looks.of(points[None], faces[0])
        warped: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}
        for kind, likeness in LIKENESS.items():
            apart = squared_distances(seen.scaled(likeness), atlas.scaled(likeness))[0]
            # A view that is just this picture would teach to copy.
            apart[[view.face.points is looks[n].points for view in views]] = np.inf
            nearest = np.argsort(apart, kind="stable")[:NEAREST_VIEWS].tolist()
            for v in {*nearest, 0}:
                if np.isinf(apart[v]):
                    continue
                if v not in warped:
                    warped[v] = sessions[v].warped(points)
                frame, gap = warped[v]
                samples.add_pair(
                    own[v],
                    warped=frame,
                    gap=gap,
                    driven=points,
                    truth=truth,
                    teeth=teeth[v],
                    person=0,
                    kinds=(kind,),
                )
        on_progress("patches", done, len(spread))
    return samples.stacked(embedding[None].astype(np.float32))


def adapt(
    base: Mapping[Kind, RegionNetwork],
    patches: Mapping[Kind, Patches],
    *,
    seconds: float,
    perceptual: PerceptualLoss | None,
    device: torch.device | str,
    seed: int,
    on_progress: Progress,
    start: Mapping[Kind, RegionNetwork] | None = None,
) -> list[Snapshot]:
    """Adapts for so many seconds; gives the networks at the end, and at some steps on the way.

    `start` is a meta-learnt one of the base, if there is one.

    Those are `FIRST_SNAPSHOT` and its doubles, so that the choice among them doesn't depend on how
    fast the machine is. At most `CANDIDATES`, the last ones.
    """
    under_way = Adaptation(
        base,
        patches,
        config=AdaptConfig(),
        perceptual=perceptual,
        device=device,
        seed=seed,
        start=start,
    )
    found: list[Snapshot] = []
    due = FIRST_SNAPSHOT
    started = time.monotonic()
    while under_way.kinds and (spent := time.monotonic() - started) < seconds:
        under_way.advance()
        on_progress("adapt", round(spent), round(seconds))
        if under_way.step == due:
            found.append(_snapshot(under_way))
            due *= 2
    if under_way.step and (not found or found[-1].step != under_way.step):
        found.append(_snapshot(under_way))
    return found[-CANDIDATES:]


def _snapshot(under_way: Adaptation) -> Snapshot:
    return Snapshot(under_way.step, under_way.adapted(), under_way.deltas())
