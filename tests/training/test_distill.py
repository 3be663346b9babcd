"""A student learns: what can be computed at once, steps, and going on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, WeightsError
from metaportrait_cli.face.face import Face
from metaportrait_cli.networks.student import Student, StudentConfig
from metaportrait_cli.training import tremor
from metaportrait_cli.training.data.lessons import Lesson, Lessons, shard_path, write_shard
from metaportrait_cli.training.distill import (
    Course,
    DistillTask,
    DistillTraining,
    around_regions,
    distil,
)
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.place import Place, RunOptions
from metaportrait_cli.training.student_start import Person, begin
from metaportrait_cli.training.tremor import Tremor
from metaportrait_cli.weights.store import load_network

from .in_pieces import PIECES, same_in_pieces

SIZE = 64
TINY = DistillTraining(
    model=StudentConfig(size=SIZE, coarse=16, terms=4, code=8, fields=6, features=4, width=8),
    steps=4,
    batch=2,
    warm_up=1,
)
EVERY_STEP = RunOptions(log_every=1)


@pytest.fixture(scope="module")
def person(portrait: NDArray[np.uint8], portrait_face: Face) -> Person:
    """The sample portrait, twice."""
    picture = cv2.resize(portrait, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    points = portrait_face.points / np.float32(portrait.shape[0])
    return Person(np.stack([picture] * 2), np.stack([points] * 2).astype(np.float32))


@pytest.fixture(scope="module")
def folder(person: Person, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of lessons in which all of the picture moves sideways."""
    folder = tmp_path_factory.mktemp("lessons")
    for number, aside in enumerate((range(-6, 7), range(-5, 6, 2))):
        points = [person.points[0] + np.array([k / SIZE, 0, 0], np.float32) for k in aside]
        frames = [np.roll(person.pictures[0], k, axis=1) for k in aside]
        flows = np.zeros((len(points), 16, 16, 2), np.float32)
        flows[..., 0] = -np.array(aside)[:, None, None] / (SIZE / 2)
        write_shard(shard_path(folder, number), np.stack(points), np.stack(frames), flows)
    return folder


def test_lessons_come_back(folder: Path, person: Person) -> None:
    lessons = Lessons(folder)
    assert (len(lessons), lessons.kept) == (19, 6)
    still = lessons[6]
    assert still.picture.shape == (3, SIZE, SIZE)
    shown = still.picture.permute(1, 2, 0).numpy().astype(int)
    assert np.abs(shown - person.pictures[0]).mean() < 3
    assert torch.allclose(still.points, torch.from_numpy(person.points[0]))
    with pytest.raises(MediaError, match="metaportrait distill"):
        Lessons(folder / "none")


def test_motion_is_known_before_the_first_step(folder: Path, person: Person) -> None:
    course = Course(person, Lessons(folder))
    task = DistillTask(TINY, [course], Place(torch.device("cpu")), perceptual=None)
    student = task.weights["student0"]
    lesson = Lesson.batch([Lessons(folder)[12]])  # six pixels to the right
    with torch.no_grad():
        shown = student(lesson.points, student.pictures_at(SIZE))[0, :, :, 10:-10]
    wanted = lesson.picture[0, :, :, 10:-10].float() / 255
    unmoved = torch.from_numpy(person.pictures[0]).permute(2, 0, 1)[:, :, 10:-10].float() / 255
    assert (shown - wanted).abs().mean() < 0.4 * (unmoved - wanted).abs().mean()


def test_what_counts_more_is_around_eyes_and_mouth(person: Person) -> None:
    points = torch.from_numpy(person.points[:1] * SIZE)
    boxes = around_regions(points, SIZE)[0, 0]
    assert 0.005 < boxes.mean() < 0.1
    x, y = points[0, [13, 468, 473], :2].long().unbind(1)  # upper lip, irises
    assert boxes[y, x].min() == 1
    assert boxes[0].max() == 0


def test_stopping_and_going_on_is_the_same_as_not_stopping(
    folder: Path, person: Person, tmp_path: Path
) -> None:
    records: list[Record] = []
    cards = []

    def run(output: Path, stop: int | None) -> None:
        card = distil(
            TINY,
            [Course(person, Lessons(folder))] * 2,
            output,
            options=replace(EVERY_STEP, stop_at=stop),
            on_record=records.append,
        )
        cards.append(card)

    same_in_pieces(run, tmp_path, stop=2)
    card = cards[-1]
    student = load_network(Student, tmp_path / PIECES / "last.safetensors", part="student0")
    assert student.pictures.dtype == torch.uint8
    assert (card["people"], card["lessons"]) == (2, 26)
    assert set(card["held_out"]["kept"]) == {"l1", "psnr"}
    assert [record["step"] for record in records if "terms" in record] == [1, 2, 3, 4] * 2
    with pytest.raises(WeightsError, match="other settings"):
        distil(
            replace(TINY, batch=3),
            [Course(person, Lessons(folder))],
            tmp_path / PIECES,
            options=EVERY_STEP,
        )


def test_what_trembles_in_lessons_moves_the_picture_less(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lessons whose motion could be told from how their landmarks tremble, by chance."""
    trembling = Tremor(person.points[0]).drawn(24, seed=5)
    aside = np.random.default_rng(0).normal(0, 4, len(trembling))
    flows = np.zeros((len(trembling), 16, 16, 2), np.float32)
    flows[..., 0] = -aside[:, None, None] / (SIZE / 2)
    points = (person.points[:1] + 0.5 * trembling.numpy()).astype(np.float32)
    frames = np.stack([person.pictures[0]] * len(points))
    write_shard(shard_path(tmp_path, 0), points, frames, flows)
    moved = []
    for size in (0.0, tremor.SIZE):
        monkeypatch.setattr(tremor, "SIZE", size)
        torch.manual_seed(0)
        student = Student(TINY.model)
        begin(student, person, Lessons(tmp_path), learnt=len(points), seed=0)
        landmarks = torch.from_numpy(person.points[:1]) + trembling
        with torch.no_grad():
            shown = student(landmarks, student.pictures_at(SIZE))
        moved.append(float(shown.diff(dim=0).abs().mean()))
    assert moved[1] < 0.8 * moved[0]
