"""`train teeth`: rows of teeth, and where they stand, from open mouths of prepared pictures.

Photos teach most: they are sharp, and each shows another person. Not a descent: means of what is
registered, the upper row first, for the lower one is where the upper one and the jaw leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face import topology
from metaportrait_cli.face.dental_arch import (
    CHIN,
    EDGE_BELOW_NOSE,
    LOWER_LIP,
    NOSE_BASE,
    PUPILS,
    SKULL,
    TOOTH_SIZE,
    UPPER_LIP,
    Bite,
    SkullPose,
    look_inside,
)
from metaportrait_cli.motion.alignment import angles_of, similarity
from metaportrait_cli.networks.teeth import TeethConfig
from metaportrait_cli.networks.teeth_rows import TeethRows
from metaportrait_cli.render.mouths.own_teeth import (
    Row,
    brightness,
    detail,
    grid,
    laid_out,
    matched,
    opening_of,
)
from metaportrait_cli.render.mouths.teeth import RAISED, raised_features, skull_pose
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.training.teeth.first_rows import LOWER, UPPER, first_row
from metaportrait_cli.training.teeth.rows import (
    LEAST_LIKENESS,
    Laid,
    mean_detail,
    mean_light,
    refined,
    template_of,
    texture_of,
)
from metaportrait_cli.weights.store import save_networks

# Mouths that tell: open by so many millimetres, turned by less (radians), of so many pixels a mm;
# and so many of a clip, the most open ones.
LEAST_OPEN, MOST_TURNED, LEAST_PIXELS = 5.0, 0.4, 1.1
OF_A_CLIP = 1
ROUNDS = 3
SIZES = (0.88, 0.92, 0.96, 1.0, 1.04)
UPPER_REACH, LOWER_REACH = (3.0, 4.0), (2.2, 1.6)
"""How far, in mm, a row may lie from where rows are on average; half a lower incisor to the side"""
HEIGHTS = np.arange(-3.0, 6.0)
"""Of lower teeth above the lip, that are tried"""
HOPELESS = 0.25
"""Likeness in the first round below which a mouth is given up"""
LOWER_LIKENESS = 0.55
UPPER_BODY, LOWER_BODY = (14.0, -7.0, -1.5), (11.0, -4.5, -0.8)
"""Where teeth are bare: to either side, from, to; in mm"""
RIDGE = 3.0


@dataclass
class OpenMouth:
    """One open mouth of somebody."""

    picture: NDArray[np.uint8]
    points: NDArray[np.float32]
    pose: SkullPose
    bite: Bite
    person: str
    likeness: float = 0.0
    shift: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Learnt:
    """The rows, and of how many mouths each one and the heights are."""

    teeth: TeethRows
    upper: int
    lower: int
    heights: int
    height_correlation: float
    """Of the heights told for people left out with those seen"""


def train_teeth(
    data: Path, output: Path, *, on_round: Callable[[str], None] = lambda _text: None
) -> Learnt:
    """Learns from prepared data and writes a file of weights. Raises `UsageError` where too few
    mouths are open."""
    config = TeethConfig()
    skull = mean_skull(np.concatenate([faces.points for faces in Faces.shards(data)]))
    mouths = list(open_mouths(data, skull))
    on_round(f"{len(mouths)} open mouths")
    upper, count = learn_upper(mouths, config, on_round=on_round)
    if not count:
        raise UsageError(f"{data}: no mouth in it shows teeth; it takes some hundred open ones")
    lower_start = first_row(LOWER, config)
    mouths = [mouth for mouth in mouths if mouth.likeness > LEAST_LIKENESS]
    seen = [(mouth, *lower_height(mouth, upper, lower_start, config)) for mouth in mouths]
    seen = [one for one in seen if one[2] > LOWER_LIKENESS]
    on_round(f"{len(seen)} show lower teeth")
    lower, lower_count = learn_lower(seen, upper, lower_start, config)
    raised, told = heights(seen)
    teeth = TeethRows(config)
    for name, value in (
        ("skull", skull[list(SKULL)]),
        ("upper", upper),
        ("lower", lower),
        ("raised", raised),
    ):
        getattr(teeth, name).copy_(torch.from_numpy(np.asarray(value, np.float32)))
    save_networks(output, {"teeth": teeth.half()}, architecture="teeth")
    return Learnt(teeth, count, lower_count, len(seen), told)


def mean_skull(faces: NDArray[np.float32], *, rounds: int = 5) -> NDArray[np.floating]:
    """The median face (478, 3) of faces (N, 478, 3) in pixels, symmetric, in millimetres."""
    mirror = topology.mirror()
    skull = list(SKULL)
    apart = np.linalg.norm(faces[:, 468] - faces[:, 473], axis=1)
    moved = (faces - faces[:, skull].mean(1, keepdims=True)) * (PUPILS / apart)[:, None, None]
    mean = np.median(moved, axis=0)
    weights = np.ones((1, len(skull)))
    for _ in range(rounds):
        mean = (mean + mean[mirror] * [-1, 1, 1]) / 2
        rotation, scale, shift = similarity(mean[None, skull], faces[:, skull], weights)
        moved = (faces - shift[:, None]) @ rotation / scale[:, None, None]
        mean = np.median(moved, axis=0)
        mean = mean * (PUPILS / np.linalg.norm(mean[468] - mean[473]))
    return (mean + mean[mirror] * [-1, 1, 1]) / 2


def open_mouths(data: Path, mean: NDArray[np.floating]) -> Iterator[OpenMouth]:
    """Those that may show teeth, with the bite of an average person."""
    skull = mean[list(SKULL)]
    for faces in Faces.shards(data):
        for clip, (start, end) in zip(faces.clips, faces.ranges, strict=True):
            found: list[tuple[float, OpenMouth]] = []
            for picture, points in zip(
                faces.images[start:end], faces.points[start:end], strict=True
            ):
                pose = skull_pose(skull, points)
                face = pose.to_skull(points)
                gap = float((face[list(LOWER_LIP), 1] - face[list(UPPER_LIP), 1]).max())
                turned = abs(float(angles_of(pose.rotation)[0]))
                if gap < LEAST_OPEN or turned > MOST_TURNED or pose.scale < LEAST_PIXELS:
                    continue
                # The jaw's angle counts from a closed mouth, which most photos don't have.
                rest = face.copy()
                closed = mean[list(CHIN)].mean(0) - mean[NOSE_BASE] + face[NOSE_BASE]
                rest[list(CHIN)] += closed - face[list(CHIN)].mean(0)
                edge = float(face[NOSE_BASE, 1]) + EDGE_BELOW_NOSE
                bite = Bite.of(rest, edge=edge, size=TOOTH_SIZE)
                found.append((gap, OpenMouth(picture.copy(), points, pose, bite, clip.identity)))
            found.sort(key=lambda one: -one[0])
            yield from (mouth for _, mouth in found[:OF_A_CLIP])


def learn_upper(
    mouths: list[OpenMouth], config: TeethConfig, *, on_round: Callable[[str], None]
) -> tuple[NDArray[np.float32], int]:
    """The upper row, (H, W, 4), and of how many mouths it is; places each mouth's bite."""
    pixels = config.pixels
    start = first_row(UPPER, config)
    template = template_of(start, pixels)
    reach = (round(UPPER_REACH[0] * pixels), round(UPPER_REACH[1] * pixels))
    middles = [mouth.bite.upper.middle for mouth in mouths]
    placed: list[tuple[Laid, float]] = []
    for number in range(ROUNDS):
        placed = []
        for mouth, middle in zip(mouths, middles, strict=True):
            if number and mouth.likeness < HOPELESS:
                continue
            laid = _placed(mouth, middle, template, reach, config)
            if mouth.likeness > LEAST_LIKENESS:
                placed.append((laid, mouth.likeness))
        mean = mean_detail(placed, pixels)
        template = mean if number else ((template + mean) / 2).astype(np.float32)
        on_round(f"upper row, round {number + 1} of {ROUNDS}: {len(placed)} mouths agree")
    bent = [(refined(template, laid, pixels), share) for laid, share in placed]
    mean, seen, count = mean_light(bent, _body(UPPER_BODY, config))
    return texture_of(mean, seen, start, config), count


def _placed(
    mouth: OpenMouth,
    middle: NDArray[np.floating],
    template: NDArray[np.float32],
    reach: tuple[int, int],
    config: TeethConfig,
) -> Laid:
    """Gives the mouth the place of its upper row, and lays it out there."""
    opening = opening_of(mouth.picture, mouth.points)
    best = (-1.0, SIZES[0], 0, 0)
    for size in SIZES:
        arch = replace(mouth.bite.upper, middle=middle, size=size)
        laid = laid_out(arch.points(*grid(config)), mouth.pose, mouth.picture, opening)
        found = detail(brightness(laid[0]), laid[1], config.pixels)
        likeness, x, y = matched(template, *found, reach=reach)
        best = max(best, (likeness, size, x, y))
    likeness, size, x, y = best
    move = np.array([-x, -y, 0]) / config.pixels * size
    mouth.likeness = likeness
    if likeness > LEAST_LIKENESS:
        upper = replace(mouth.bite.upper, middle=middle + move, size=size)
        mouth.bite = replace(mouth.bite, upper=upper)
    arch = mouth.bite.upper
    return Laid(*laid_out(arch.points(*grid(config)), mouth.pose, mouth.picture, opening))


def lower_height(
    mouth: OpenMouth,
    upper: NDArray[np.float32],
    lower: NDArray[np.float32],
    config: TeethConfig,
) -> tuple[float, float]:
    """How far the lower teeth of a mouth stand above its lip, and how like teeth they look there,
    in [-1, 1]."""
    ring = mouth.points[topology.ring("lips_inner"), :2].astype(np.float32)
    rows = Row(upper, config), Row(lower, config)
    best = (-1.0, 0.0)
    for raised in HEIGHTS.tolist():
        inside = look_inside(
            mouth.bite,
            mouth.pose,
            mouth.points,
            size=len(mouth.picture),
            unknown=ring,
            raised=raised,
        )
        if inside is None:
            break
        above = rows[0].drawn(inside.upper, mouth.pose.scale)
        below = rows[1].drawn(inside.lower, mouth.pose.scale)
        weight = inside.opening * (1 - above[..., 3])
        if weight.sum() < 40:
            break
        drawn = 0.45 * below[..., :3].mean(-1) + 0.06 * (1 - below[..., 3])
        shown = ((mouth.picture[inside.box] / 255.0) ** 2.2).mean(-1)
        ours, theirs = (np.log(0.02 + light) for light in (drawn, shown))
        ours, theirs = (light - (light * weight).sum() / weight.sum() for light in (ours, theirs))
        sizes = (ours**2 * weight).sum() * (theirs**2 * weight).sum()
        best = max(best, (float((ours * theirs * weight).sum() / np.sqrt(sizes + 1e-6)), raised))
    likeness, raised = best
    edge = raised in (HEIGHTS[0], HEIGHTS[-1])
    return raised, -1.0 if edge else likeness


def learn_lower(
    seen: list[tuple[OpenMouth, float, float]],
    upper: NDArray[np.float32],
    start: NDArray[np.float32],
    config: TeethConfig,
) -> tuple[NDArray[np.float32], int]:
    """The lower row, (H, W, 4), from mouths with their heights and likenesses; of how many it is.

    Few mouths show it, and small: registered to a row by anatomy, whose gaps it keeps.
    """
    pixels = config.pixels
    template = template_of(start, pixels)
    reach = (round(LOWER_REACH[0] * pixels), round(LOWER_REACH[1] * pixels))
    rows = Row(upper, config)
    placed: list[tuple[Laid, float]] = []
    for mouth, raised, _ in seen:
        laid = _lower_laid(mouth, raised, rows, config)
        found = detail(brightness(laid.light), laid.known, pixels)
        likeness, x, y = matched(template, *found, reach=reach)
        if likeness > LEAST_LIKENESS:
            placed.append((refined(template, laid.moved(x, y), pixels), likeness))
    mean, known, count = mean_light(placed, _body(LOWER_BODY, config))
    return (texture_of(mean, known, start, config) if count else start), count


def _lower_laid(mouth: OpenMouth, raised: float, upper: Row, config: TeethConfig) -> Laid:
    """The mouth along its lower arch; what the upper row covers is not known."""
    skull = mouth.pose.to_skull(mouth.points)
    bite = mouth.bite
    arch, turn = bite.lower(bite.jaw(skull))
    edge = turn @ (arch.middle - bite.hinge) + bite.hinge
    lift = np.array([0, skull[list(LOWER_LIP)][4:7, 1].mean() - raised - edge[1], 0])
    places = (arch.points(*grid(config)) - bite.hinge) @ turn.T + bite.hinge + lift
    opening = opening_of(mouth.picture, mouth.points)
    ring = mouth.points[topology.ring("lips_inner"), :2].astype(np.float32)
    inside = look_inside(
        bite, mouth.pose, mouth.points, size=len(mouth.picture), unknown=ring, raised=raised
    )
    if inside is not None:
        covered = upper.drawn(inside.upper, mouth.pose.scale)[..., 3]
        part = opening[inside.box]
        part[:] = np.rint(part * (1 - covered)).astype(np.uint8)
    return Laid(*laid_out(places, mouth.pose, mouth.picture, opening))


def heights(seen: list[tuple[OpenMouth, float, float]]) -> tuple[NDArray[np.floating], float]:
    """Factors (8,) that tell how far the lower teeth stand above the lip, see `raised_features`;
    and the correlation of what they tell of people left out with what was seen."""
    if len(seen) < 2 * len(HEIGHTS):
        return np.array([0, 0, 0, 0, 0, 0, 0, 1.0]), 0.0
    features = np.stack([raised_features(m.bite, m.pose.to_skull(m.points)) for m, _, _ in seen])
    wanted = np.clip([raised for _, raised, _ in seen], *RAISED)
    weight = np.array([likeness - LOWER_LIKENESS + 0.1 for _, _, likeness in seen])
    people = sorted({m.person for m, _, _ in seen})
    fold = np.array([people.index(m.person) % 5 for m, _, _ in seen])
    told = np.zeros(len(seen))
    for number in range(5):
        out = fold == number
        told[out] = _with_one(features[out]) @ _ridge(features[~out], wanted[~out], weight[~out])
    return _ridge(features, wanted, weight), float(np.corrcoef(told, wanted)[0, 1])


def _ridge(
    features: NDArray[np.floating], wanted: NDArray[np.floating], weight: NDArray[np.floating]
) -> NDArray[np.floating]:
    mean, spread = features.mean(0), features.std(0) + 1e-6
    design = _with_one((features - mean) / spread)
    free = np.diag([RIDGE] * features.shape[1] + [0.0])
    found = np.linalg.solve(
        design.T @ (weight[:, None] * design) + free, design.T @ (weight * wanted)
    )
    factors = found[:-1] / spread
    return np.append(factors, found[-1] - factors @ mean)


def _with_one(features: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.column_stack([features, np.ones(len(features))])


def _body(place: tuple[float, float, float], config: TeethConfig) -> NDArray[np.bool_]:
    u, v = grid(config)
    return (np.abs(u) < place[0]) & (v > place[1]) & (v < place[2])
