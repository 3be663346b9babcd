"""`distill`: a student learns one person from a teacher's pictures of them.

MegaPortraits (Section 3.4) distils for days on GPUs; this is for minutes to an hour of a CPU. What
can be had in closed form is not descended to, see `student_start`. Steps do the rest: most on
pixels at half the size, every fourth at full size and by deep features of the face, which costs
five times as much. Landmarks tremble a little and pictures don't, so that pictures learn not to.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from metaportrait_cli.networks.compact_blocks import enlarge, shrink
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.student import Student, StudentConfig, Students
from metaportrait_cli.training.data.lessons import Lesson, Lessons
from metaportrait_cli.training.descent import Descent, DescentConfig, Terms
from metaportrait_cli.training.loop import Record, Task, train, unheard
from metaportrait_cli.training.losses import masked_l1, pyramid_l1
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores, Stateful
from metaportrait_cli.training.student_start import Person, begin
from metaportrait_cli.training.tremor import Tremor
from metaportrait_cli.weights.architectures import STUDENT

STUDENTS: Final = "students"
AROUND: Final = 0.25
"""How far around eyes and mouth pixels count more, as a share of their box"""
JUDGED: Final = 16
EVERY: Final = 4
"""A step of so many is at full size"""


@dataclass(frozen=True)
class DistillWeights:
    """Of the terms."""

    pixel: float = 10.0
    region: float = 6.0
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


@dataclass(frozen=True)
class Course:
    """A person, and the lessons about them."""

    person: Person
    lessons: Lessons

    @property
    def learnt(self) -> int:
        """How many lessons are learnt from; those after them are kept aside."""
        return len(self.lessons) - self.lessons.kept


def distil(
    config: DistillTraining,
    courses: Sequence[Course],
    output: Path,
    *,
    options: RunOptions,
    perceptual: PerceptualLoss | None = None,
    on_record: Callable[[Record], None] = unheard,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    Its weights have a part a person, see `part_of`.
    """
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = DistillTask(config, courses, place, perceptual=perceptual)
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


def part_of(number: int) -> str:
    """What a person's student is called in the weights of a run."""
    return f"student{number}"


class DistillTask(Task[Lesson]):
    """One student of one person or several, who take turns, a step each."""

    architecture = STUDENT

    def __init__(
        self,
        config: DistillTraining,
        courses: Sequence[Course],
        place: Place,
        *,
        perceptual: PerceptualLoss | None,
    ) -> None:
        if place.world > 1:
            raise UsageError("distill runs in one process; start it without torchrun")
        self.config = config
        self._place = place
        self._perceptual = perceptual.to(place.device) if perceptual is not None else None
        self._courses = courses
        self._tremors = [Tremor(course.person.points[0]) for course in courses]
        torch.manual_seed(config.seed)
        networks: dict[str, Network] = {STUDENTS: Students(config.model, len(courses))}
        for number, (student, course) in enumerate(zip(_people(networks), courses, strict=True)):
            begin(student, course.person, course.lessons, learnt=course.learnt, seed=config.seed)
            networks[_retouch(number)] = Retouch(config.model)
        self._descent: Descent[Network] = Descent(networks, config, place)
        self._pictures = [
            {size: student.pictures_at(size) for size in self._sizes}
            for student in _people(self._descent.networks)
        ]

    @property
    def _sizes(self) -> tuple[int, int]:
        """Of the pictures that are compared, in turns."""
        return self.config.model.size // 2, self.config.model.size

    @property
    def state(self) -> Stateful:
        return self._descent.state

    @property
    def weights(self) -> Mapping[str, Student]:
        averaged = self._descent.averaged
        return {
            part_of(number): retouched(student, averaged[_retouch(number)])
            for number, student in enumerate(_people(averaged))
        }

    def batches(self, steps: range) -> Iterator[Lesson]:
        config = self.config
        dataset = _Drawn(self._courses, batch=config.batch, seed=config.seed)
        return self._place.batches(dataset, steps, count=config.batch, collate=Lesson.batch)

    def step(self, batch: Lesson, number: int) -> Terms:
        batch = batch.to(self._place.device)
        turn, whose = divmod(number, len(self._courses))
        size = self._sizes[turn % EVERY == EVERY - 1]
        shaken = self._tremors[whose].drawn(len(batch.points), seed=_seed(self.config, number))
        shaken = batch.points + shaken.to(self._place.device)
        return self._descent.step(number, lambda: self._terms(batch, shaken, size, whose))

    def _terms(self, batch: Lesson, shaken: Tensor, size: int, whose: int) -> Terms:
        networks, weights = self._descent.networks, self.config.weights
        pictures = networks[_retouch(whose)](self._pictures[whose][size])
        student = _people(networks)[whose]
        # The head is where it is: what shakes as a whole couldn't be told from what moves.
        (head, _), (_, seen) = student.observed(batch.points), student.observed(shaken)
        image = student.mixed(*student.placed(head, *student.still(seen)), pictures).float()
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
        scores: dict[str, list[float]] = {}
        for student, course in zip(self.weights.values(), self._courses, strict=True):
            if course.lessons.kept:
                self._judge(student, course, into=scores)
        means = {name: round(float(np.mean(each)), 5) for name, each in scores.items()}
        return {"kept": means} if means else {}

    def _judge(self, student: Student, course: Course, *, into: dict[str, list[float]]) -> None:
        lessons = course.lessons
        numbers = np.unique(np.linspace(course.learnt, len(lessons) - 1, JUDGED).astype(int))
        pictures = student.pictures_at(self.config.model.size)
        for number in numbers.tolist():
            lesson = Lesson.batch([lessons[number]]).to(self._place.device)
            image = student(lesson.points, pictures)
            target = lesson.picture.float() / 255
            found = {
                "l1": (image - target).abs().mean(),
                "psnr": -10 * torch.log10(F.mse_loss(image.clamp(0, 1), target)),
            }
            if self._perceptual is not None:
                found["perceptual"] = self._perceptual(image, target).mean()
            for name, value in found.items():
                into.setdefault(name, []).append(float(value))

    def merit(self, scores: Scores) -> float:
        return -scores["kept"]["psnr"] / 50 + scores["kept"].get("perceptual", 0.0)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "people": len(self._courses),
            "lessons": sum(course.learnt for course in self._courses),
            "kept": sum(course.lessons.kept for course in self._courses),
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
def retouched(student: Student, retouch: Network) -> Student:
    """A copy of the student whose pictures are those that it has learnt."""
    done = copy.deepcopy(student)
    pictures = retouch(done.pictures_at(done.config.size))
    done.pictures.copy_((pictures.clamp(0, 1) * 255).round().to(torch.uint8))
    return done.requires_grad_(False).eval()


def _seed(config: DistillTraining, number: int) -> int:
    """Of what is drawn in a step."""
    return int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])


def _retouch(number: int) -> str:
    """What is changed of a person's pictures, among the networks."""
    return f"retouch{number}"


def _people(networks: Mapping[str, Network]) -> list[Student]:
    """Each person's student."""
    students = networks[STUDENTS]
    assert isinstance(students, Students)  # noqa: S101
    return [student for student in students.people if isinstance(student, Student)]


class _Drawn(Dataset[Lesson]):
    """Lesson number `i` of an endless course: a batch of one person's, then of the next one's;
    epochs of each in an order of their own."""

    def __init__(self, courses: Sequence[Course], *, batch: int, seed: int) -> None:
        self._courses, self._batch, self._seed = courses, batch, seed
        self._orders: dict[int, tuple[int, NDArray[np.intp]]] = {}

    def __getitem__(self, index: int) -> Lesson:
        step, within = divmod(index, self._batch)
        turn, whose = divmod(step, len(self._courses))
        course = self._courses[whose]
        epoch, place = divmod(turn * self._batch + within, course.learnt)
        known, order = self._orders.get(whose, (-1, None))
        if order is None or known != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(course.learnt)
            self._orders[whose] = epoch, order
        return course.lessons[int(order[place])]
