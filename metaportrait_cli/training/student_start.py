"""What of a student can be computed before its first step, by least squares over its lessons.

z are principal components of what it observes; the fields of motion are regressed onto the flows
that the teacher tells, or geometry, both seen from where the head stands still. Lessons are steady
and drivers tremble, so the regression is told what trembling looks like: otherwise shoulders and
hair hang on what hardly varies in lessons, and shake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import CorrespondenceWarp
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.landmark_image import filled_polygon
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.compact_blocks import shrink
from metaportrait_cli.networks.student import (
    FLOW_UNIT,
    LOGIT_UNIT,
    SETTLED,
    Student,
    StudentConfig,
    grid,
    sampled,
)
from metaportrait_cli.training.data.lessons import Lessons
from metaportrait_cli.training.tremor import Tremor

REGRESSED: Final = 1600
"""Lessons that the fields of motion are regressed from"""
RIDGE: Final = 0.03
TREMORS: Final = 4
"""How often each lesson is shaken for that"""
LEAST_SPREAD: Final = 3e-3
"""Of a principal component, in half sides: noise of the landmarks is not made larger"""
DEEP: Final = 0.5
"""Weight of the landmarks' depth, which is guessed"""
LIVELY: Final = 8.0
"""Weight of the points of lids, irises and lips among landmarks: they move little, and matter"""
BEHIND: Final = -4.0
"""Logit of what is not to be seen at first"""
SHOWN: Final = 3.0
HALF_SHUT: Final = 0.7
"""Opening of an eye over that in the person's picture from which on lids are that picture's"""
FADE_SHARE: Final = 0.12
AROUND_EYES: Final = 0.25
"""How far around an eye there are lids, as a share of its width"""


@dataclass(frozen=True)
class Person:
    """Whom it is about: pictures (P, S, S, 3) of the crop, the person's own first, and the
    landmarks (P, 478, 3) of each, in sides of the crop."""

    pictures: NDArray[np.uint8]
    points: NDArray[np.float32]


@torch.no_grad()
def begin(student: Student, person: Person, lessons: Lessons, *, learnt: int, seed: int) -> None:
    """Gives a new student the pictures, and what of its weights can be computed."""
    config = student.config
    own = torch.from_numpy(person.pictures.transpose(0, 3, 1, 2).copy())
    student.pictures.copy_(torch.cat([own, own[:1]]))
    student.aligner.copy_(aligner(person.points[0]))
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.permutation(learnt)[:REGRESSED])
    points = lessons.points[chosen]
    head, seen = student.observed(torch.from_numpy(points))
    rest, axes = whitening(seen, config.terms)
    student.rest.copy_(rest)
    student.axes.copy_(axes)
    told = None if lessons.flows is None else lessons.flows[chosen]
    maps = wanted_maps(config, person, points, head, told).flatten(1)
    weight = RIDGE * len(points) * torch.eye(config.terms + config.code + 1)
    weight[-1, -1] = 0
    codes = shaken_codes(student, points, Tremor(person.points[0]), seed=seed)  # (D, N, C)
    every = codes.flatten(0, 1)
    solved = torch.linalg.solve(weight + every.T @ every / len(codes), codes.mean(0).T @ maps)
    student.base.copy_(solved[-1].view_as(student.base))
    # The fields that together say most, of unit size as far as the lessons go.
    left, spread, fields = torch.linalg.svd(solved[:-1], full_matrices=False)
    kept = slice(config.fields)
    amounts = left[:, kept] * spread[kept]
    size = (every[:, :-1] @ amounts).std(dim=0) + 1e-6
    student.amounts.weight.copy_((amounts / size).T / SETTLED)
    student.fields.copy_(fields[kept] * size[:, None] / SETTLED)


def shaken_codes(
    student: Student, points: NDArray[np.float32], tremor: Tremor, *, seed: int
) -> Tensor:
    """What a student makes of trembling landmarks (N, 478, 3), a 1 after it: (D, N, C)."""
    found = []
    for number in range(TREMORS):
        shaken = torch.from_numpy(points) + tremor.drawn(len(points), seed=seed + number)
        z, h = student.codes(student.observed(shaken)[1])
        found.append(torch.cat([z, h, torch.ones(len(z), 1)], dim=1))
    return torch.stack(found)


def aligner(points: NDArray[np.float32]) -> Tensor:
    """What takes landmarks to the affine map from these (478, 3), in sides of the crop, to them:
    (3, 478). Points that expression moves little count most."""
    weight = MorphableModel.bundled().rigid_weight[:, None]
    places = np.ones((len(weight), 3), np.float32)
    places[:, :2] = 2 * points[: len(weight), :2] - 1
    found = np.zeros((3, len(points)), np.float32)
    found[:, : len(weight)] = np.linalg.solve(places.T @ (weight * places), (weight * places).T)
    return torch.from_numpy(found)


def whitening(seen: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and axes (D, `terms`) of what students observe (N, D): (seen - mean) @ axes are
    its principal components, of variance 1 where they are not mere noise."""
    weight = torch.ones(topology.POINTS)
    lively = [*(p for eye in topology.LIDS for pair in eye for p in pair)]
    lively += [*range(topology.MESH_POINTS, topology.POINTS), *topology.ring("lips_inner").tolist()]
    weight[lively] = LIVELY
    depth = torch.full((topology.POINTS,), DEEP)
    pose = torch.ones(seen.shape[1] - 3 * topology.POINTS)
    weights = torch.cat([weight.repeat_interleave(2), depth, pose])
    rest = seen.mean(0)
    _, spread, rows = torch.linalg.svd((seen - rest) * weights, full_matrices=False)
    rows, spread = rows[:terms], spread[:terms] / len(seen) ** 0.5
    axes = torch.zeros(seen.shape[1], terms)
    axes[:, : len(rows)] = (rows / (spread + LEAST_SPREAD)[:, None] * weights).T
    return rest, axes


def wanted_maps(
    config: StudentConfig,
    person: Person,
    points: NDArray[np.float32],
    head: Tensor,
    told: NDArray[np.float16] | None,
) -> Tensor:
    """Maps (N, M, G, G), in the network's units, that landmarks (N, 478, 3) ask for.

    `head` (N, 3, 2) as of `Student.observed`. The first picture's flow is the teacher's where it is
    `told` (N, G', G', 2).
    """
    side, count = config.coarse, config.pictures
    whole = Crop(0, 0, side)
    fade = border_fade(whole, width=side, height=side, size=side, share=FADE_SHARE)
    flows = torch.zeros(len(points), 2 * count, side, side)
    masks = torch.full((len(points), count, side, side), BEHIND / LOGIT_UNIT)
    for number, own in enumerate(person.points):
        warp = CorrespondenceWarp(own * side, side=side, fade=fade)
        for flow, mask, driven in zip(flows, masks, points, strict=True):
            found = warp(driven * side)
            shift = torch.from_numpy(found.shift).permute(2, 0, 1)
            flow[2 * number : 2 * number + 2] = shift / (side / 2)
            if number == 0 and count > 1:
                there = hidden_at_first(own * side, driven * side, found.mouth_gap, side=side)
                mask[0] += torch.from_numpy(there) * (SHOWN - BEHIND) / LOGIT_UNIT
    if told is not None:
        flows[:, :2] = shrink(torch.from_numpy(told.transpose(0, 3, 1, 2).astype(np.float32)), side)
    # From where the head is to where it stands still.
    still = grid(flows)
    away = torch.linalg.inv(head[:, :2])
    there = (still.flatten(0, 1) - head[:, 2:]) @ away
    there = there.view(-1, *still.shape)  # (N, G, G, 2), the place p of each q
    flows, masks = sampled(flows, there), sampled(masks, there)
    back = (still - there).permute(0, 3, 1, 2).repeat(1, count, 1, 1)
    # How far each place moves as the head does, by least squares over all lessons.
    share = (flows * back)[:, :2].sum((0, 1)) / (back[:, :2] ** 2).sum((0, 1)).clamp(min=1e-6)
    rigidity = share.clamp(0, 1).expand(len(points), 1, -1, -1)
    motion = (flows - rigidity * back) / FLOW_UNIT
    return torch.cat([motion, masks, rigidity], dim=1)


def hidden_at_first(
    own: NDArray[np.float32],
    driven: NDArray[np.float32],
    mouth: NDArray[np.float32],
    *,
    side: int,
) -> NDArray[np.float32]:
    """Where a frame shows what the person's own picture hides, (G, G) in [0, 1]: in the `mouth`'s
    gap (N, 2), and on lids that are more shut. Landmarks (478, 3) are in pixels of the grid."""
    found = filled_polygon(mouth, side=side, size=side) / np.float32(255)
    for lids, name in zip(topology.LIDS, ("right_eye", "left_eye"), strict=True):
        upper, lower = np.array(lids).T
        gaps = [np.abs(points[lower, 1] - points[upper, 1]).mean() for points in (own, driven)]
        shut = float(np.clip(1 - gaps[1] / (HALF_SHUT * max(gaps[0], 1e-3)), 0, 1))
        ring = driven[topology.ring(name), :2]
        width = np.ptp(ring[:, 0])
        radii = np.array([0.5 + AROUND_EYES, 0.3 + AROUND_EYES]) * width
        y, x = np.mgrid[:side, :side] + 0.5
        middle = ring.mean(0)
        far = np.hypot((x - middle[0]) / radii[0], (y - middle[1]) / radii[1])
        found = np.maximum(found, shut * np.clip(2 - 2 * far, 0, 1))
    return found.astype(np.float32)
