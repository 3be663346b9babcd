"""`distill`: a student learns one person from a teacher's pictures of them.

MegaPortraits (Section 3.4) distils for days on GPUs; this is for minutes to an hour of a CPU. What
can be had in closed form is not descended to: z are the landmarks' principal components, and the
fields of motion are regressed onto the flows that the teacher, or geometry, tells. Steps do the
rest: most on pixels at half the size, every fourth at full size and by deep features of the face,
which costs five times as much.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import CorrespondenceWarp
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.landmark_image import filled_polygon
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.compact_blocks import enlarge, shrink
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.student import (
    FLOW_UNIT,
    LOGIT_UNIT,
    SETTLED,
    Student,
    StudentConfig,
    grid,
    sampled,
)
from metaportrait_cli.training.data.lessons import Lesson, Lessons
from metaportrait_cli.training.descent import Descent, DescentConfig, Terms
from metaportrait_cli.training.loop import Record, Task, train, unheard
from metaportrait_cli.training.losses import masked_l1, pyramid_l1
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores, Stateful
from metaportrait_cli.weights.architectures import STUDENT

PART: Final = "student"
REGRESSED: Final = 1600
"""Lessons that the fields of motion are regressed from"""
RIDGE: Final = 0.03
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
AROUND: Final = 0.25
"""How far around eyes and mouth pixels count more, as a share of their box"""
JUDGED: Final = 16
EVERY: Final = 4
"""A step of so many is at full size"""


@dataclass(frozen=True)
class Person:
    """Whom it is about: pictures (P, S, S, 3) of the crop, the person's own first, and the
    landmarks (P, 478, 3) of each, in sides of the crop."""

    pictures: NDArray[np.uint8]
    points: NDArray[np.float32]


@dataclass(frozen=True)
class DistillWeights:
    """Of the terms."""

    pixel: float = 10.0
    region: float = 2.0
    """For pixels around eyes and mouth, once more"""
    perceptual: float = 3.0
    """For deep features of the face, at full size"""


@dataclass(frozen=True)
class DistillTraining(DescentConfig):
    """What is trained and how; a run can only be continued with the same."""

    model: StudentConfig = field(default_factory=StudentConfig)
    weights: DistillWeights = field(default_factory=DistillWeights)
    steps: int = 1200
    batch: int = 4
    lr: float = 1.5e-3
    warm_up: int = 20
    plateau: float = 0.4
    average: float = 0.99


def distil(
    config: DistillTraining,
    person: Person,
    lessons: Lessons,
    output: Path,
    *,
    options: RunOptions,
    perceptual: PerceptualLoss | None = None,
    on_record: Callable[[Record], None] = unheard,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card."""
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = DistillTask(config, person, lessons, place, perceptual=perceptual)
        return train(task, folder, options=options, place=place, on_record=on_record)


class Retouch(Network):
    """What is changed of the stored pictures while a student learns; it goes into them."""

    config_type = StudentConfig

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        half = config.size // 2
        self.change = nn.Parameter(torch.zeros(config.pictures + 1, 3, half, half))

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (P + 1, 3, S, S) in [0, 1], S any size."""
        size = pictures.shape[-1]
        change = enlarge(self.change, size) if size > self.change.shape[-1] else self.change
        return pictures + shrink(change, size)


class DistillTask(Task[Lesson]):
    """One student, one person."""

    architecture = STUDENT

    def __init__(
        self,
        config: DistillTraining,
        person: Person,
        lessons: Lessons,
        place: Place,
        *,
        perceptual: PerceptualLoss | None,
    ) -> None:
        if place.world > 1:
            raise UsageError("distill runs in one process; start it without torchrun")
        self.config = config
        self._place = place
        self._perceptual = perceptual.to(place.device) if perceptual is not None else None
        self._lessons = lessons
        self._learnt = len(lessons) - lessons.kept
        torch.manual_seed(config.seed)
        student = Student(config.model)
        begin(student, person, lessons, learnt=self._learnt, seed=config.seed)
        self._descent: Descent[Network] = Descent(
            {PART: student, "retouch": Retouch(config.model)}, config, place
        )
        self._pictures = {size: student.pictures_at(size) for size in self._sizes}

    @property
    def _sizes(self) -> tuple[int, int]:
        """Of the pictures that are compared, in turns."""
        return self.config.model.size // 2, self.config.model.size

    @property
    def state(self) -> Stateful:
        return self._descent.state

    @property
    def weights(self) -> Mapping[str, Network]:
        averaged = self._descent.averaged
        return {PART: retouched(averaged[PART], averaged["retouch"])}

    def batches(self, steps: range) -> Iterator[Lesson]:
        config = self.config
        dataset = _Drawn(self._lessons, self._learnt, seed=config.seed)
        return self._place.batches(dataset, steps, count=config.batch, collate=Lesson.batch)

    def step(self, batch: Lesson, number: int) -> Terms:
        batch = batch.to(self._place.device)
        size = self._sizes[number % EVERY == EVERY - 1]
        return self._descent.step(number, lambda: self._terms(batch, size))

    def _terms(self, batch: Lesson, size: int) -> Terms:
        networks, weights = self._descent.networks, self.config.weights
        pictures = networks["retouch"](self._pictures[size])
        image = networks[PART](batch.points, pictures).float()
        target = shrink(batch.picture.float() / 255, size)
        points = batch.points * size
        terms = {
            "pixel": weights.pixel * pyramid_l1(image, target).mean(),
            "region": weights.region
            * masked_l1(image, target, around_regions(points, size)).mean(),
        }
        if self._perceptual is not None and size == self.config.model.size:
            apart = self._perceptual.in_face(image, target, points)
            terms["perceptual"] = weights.perceptual * apart.mean()
        return terms

    @torch.no_grad()
    def judge(self) -> Scores:
        if not self._lessons.kept:
            return {}
        numbers = np.unique(np.linspace(self._learnt, len(self._lessons) - 1, JUDGED).astype(int))
        student = self.weights[PART]
        assert isinstance(student, Student)  # noqa: S101
        pictures = student.pictures_at(self.config.model.size)
        scores: dict[str, list[float]] = {}
        for number in numbers.tolist():
            lesson = Lesson.batch([self._lessons[number]]).to(self._place.device)
            image = student(lesson.points, pictures)
            target = lesson.picture.float() / 255
            found = {
                "l1": (image - target).abs().mean(),
                "psnr": -10 * torch.log10(F.mse_loss(image.clamp(0, 1), target)),
            }
            if self._perceptual is not None:
                found["perceptual"] = self._perceptual(image, target).mean()
            for name, value in found.items():
                scores.setdefault(name, []).append(float(value))
        return {"kept": {name: round(float(np.mean(each)), 5) for name, each in scores.items()}}

    def merit(self, scores: Scores) -> float:
        return -scores["kept"]["psnr"] / 50 + scores["kept"].get("perceptual", 0.0)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "lessons": self._learnt,
            "kept": self._lessons.kept,
            "perceptual_loss": self._perceptual is not None,
        }


def around_regions(points: Tensor, size: int) -> Tensor:
    """Boxes (B, 1, S, S) around the eyes and the mouth of points (B, 478, 3) in pixels."""
    centres = torch.arange(size, device=points.device) + 0.5
    found = torch.zeros(len(points), size, size, device=points.device, dtype=torch.bool)
    for name in ("right_eye", "left_eye", "lips_outer"):
        part = points[:, torch.from_numpy(topology.ring(name)).long(), :2]
        low, high = part.amin(1), part.amax(1)  # (B, 2)
        more = AROUND * (high - low).amax(1, keepdim=True)
        low, high = low - more, high + more
        columns = (centres > low[:, :1]) & (centres < high[:, :1])
        rows = (centres > low[:, 1:]) & (centres < high[:, 1:])
        found |= rows[:, :, None] & columns[:, None, :]
    return found[:, None].float()


@torch.no_grad()
def retouched(student: Network, retouch: Network) -> Student:
    """A copy of the student whose pictures are those that it has learnt."""
    done = copy.deepcopy(student)
    assert isinstance(done, Student)  # noqa: S101
    pictures = retouch(done.pictures_at(done.config.size))
    done.pictures.copy_((pictures.clamp(0, 1) * 255).round().to(torch.uint8))
    return done.requires_grad_(False).eval()


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
    z, h = student.codes(seen)
    codes = torch.cat([z, h, torch.ones(len(z), 1)], dim=1)
    told = None if lessons.flows is None else lessons.flows[chosen]
    maps = wanted_maps(config, person, points, head, told)
    weight = RIDGE * len(codes) * torch.eye(codes.shape[1])
    weight[-1, -1] = 0
    solved = torch.linalg.solve(codes.T @ codes + weight, codes.T @ maps.flatten(1))
    student.base.copy_(solved[-1].view_as(student.base))
    # The fields that together say most, of unit size as far as the lessons go.
    left, spread, fields = torch.linalg.svd(solved[:-1], full_matrices=False)
    kept = slice(config.fields)
    amounts = left[:, kept] * spread[kept]
    size = (codes[:, :-1] @ amounts).std(dim=0) + 1e-6
    student.amounts.weight.copy_((amounts / size).T / SETTLED)
    student.fields.copy_(fields[kept] * size[:, None] / SETTLED)


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
        radii = np.array([0.5 + AROUND, 0.3 + AROUND]) * width
        y, x = np.mgrid[:side, :side] + 0.5
        middle = ring.mean(0)
        far = np.hypot((x - middle[0]) / radii[0], (y - middle[1]) / radii[1])
        found = np.maximum(found, shut * np.clip(2 - 2 * far, 0, 1))
    return found.astype(np.float32)


class _Drawn(Dataset[Lesson]):
    """Lesson number `i` of an endless course: epochs in an order of their own each."""

    def __init__(self, lessons: Lessons, learnt: int, *, seed: int) -> None:
        self._lessons, self._learnt, self._seed = lessons, learnt, seed
        self._order: tuple[int, NDArray[np.intp]] = (-1, np.zeros(0, np.intp))

    def __getitem__(self, index: int) -> Lesson:
        epoch, place = divmod(index, self._learnt)
        if self._order[0] != epoch:
            draw = np.random.default_rng((self._seed, epoch))
            self._order = epoch, draw.permutation(self._learnt)
        return self._lessons[int(self._order[1][place])]
