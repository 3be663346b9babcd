"""Several pictures of one person as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Lends, Source
from metaportrait_cli.render.protocol import Driven, Frames, Rendered, Session
from metaportrait_cli.render.views import Parts, blended

SIZE = 128


@dataclass
class Flat(Session):
    """A session that paints everything in one grey level."""

    level: int

    def render(self, driven: Driven) -> Rendered:
        return Rendered(np.full((len(driven), SIZE, SIZE, 3), self.level, np.uint8))


class Flats:
    """A renderer of them: each picture's own first pixel."""

    fixed_size = None
    keeps_detail = True

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> Session:
        return blended(self._open_one, source, size=size, rate=rate)

    def _open_one(self, source: Source, *, size: int) -> Flat:
        assert size == SIZE
        return Flat(int(source.picture[0, 0, 0]))


def opened(points: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    moved = points.copy()
    lower = [*topology.ring("lips_inner")[1:10], *topology.ring("lips_outer")[1:10]]
    moved[lower, 1] += amount
    return moved


@pytest.fixture(scope="module")
def person(portrait_face: Face) -> Source:
    """Shut, half open and open mouth, at levels 0, 100 and 200; all in the same place."""
    crop = Crop.around(portrait_face.points, within=(512, 512))

    def view(level: int, amount: float) -> Source:
        picture = np.full((512, 512, 3), level, np.uint8)
        face = replace(portrait_face, points=opened(portrait_face.points, amount))
        return Source(Path("p.png"), picture, face, faces_seen=1, crop=crop)

    return replace(view(0, 0), others=(view(100, 12), view(200, 24)), lends="all")


def driven(person: Source, amount: float) -> NDArray[np.float32]:
    return person.crop.to_crop(opened(person.face.points, amount), SIZE)


def in_mouth(frames: Frames, points: NDArray[np.float32]) -> NDArray[np.float32]:
    x, y = points[topology.ring("lips_outer"), :2].mean(0).astype(int)
    return frames[:, y, x, 0].astype(float)


def test_a_mouth_comes_from_the_picture_where_it_is_alike(person: Source) -> None:
    session = Flats().open(person, size=SIZE)
    for view, level in ((0, 0), (12, 100), (24, 200)):
        points = driven(person, view)
        assert abs(in_mouth(session.render(Driven.of(points[None])).frames, points)[0] - level) < 30


def test_what_is_mixed_changes_continuously(person: Source) -> None:
    session = Flats().open(person, size=SIZE)
    points = np.stack([driven(person, amount) for amount in np.linspace(0, 24, 120)])
    levels = in_mouth(session.render(Driven.of(points)).frames, points[60])
    assert np.abs(np.diff(levels)).max() < 18
    assert levels[-1] - levels[0] > 150


@pytest.mark.parametrize("lends", ["face", "head", "all"])
def test_views_lend_so_much_and_no_more(person: Source, lends: Lends) -> None:
    lending = replace(person, lends=lends)
    # Recolouring would make all flat pictures alike.
    session = Flats().open(replace(lending, others=lending.others[1:]), size=SIZE)
    points = driven(person, 24)
    frame = session.render(Driven.of(points[None])).frames[0, ..., 0]
    parts = Parts.of(points, size=SIZE)
    if lends == "all":
        assert frame[0, 0] > 0
    else:
        assert frame[0, 0] == 0
    inside = np.ones_like(parts.head, bool) if lends == "all" else parts.head > 0
    if lends == "face":
        inside = parts.face > 0
    assert (frame[~inside] == 0).all()


def test_a_clip_s_head_follows_slowly_and_windows_do_not_matter(person: Source) -> None:
    points = np.stack([driven(person, 0 if t < 5 else 24) for t in range(12)])
    at_once = Flats().open(person, size=SIZE).render(Driven.of(points)).frames
    clip = Flats().open(person, size=SIZE, rate=Fraction(25)).render(Driven.of(points)).frames
    corner = clip[:, 0, 0, 0].astype(int)
    jump = np.abs(np.diff(at_once[:, 0, 0, 0].astype(int))).max()
    assert jump > 40
    assert 0 < np.abs(np.diff(corner)).max() < 0.6 * jump
    session = Flats().open(person, size=SIZE, rate=Fraction(25))
    parts = [
        session.render(Driven.of(points[start : start + 5])).frames for start in range(0, 12, 5)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), clip)
    session.recall({})
    session.render(Driven.of(points[:7]))
    further = Flats().open(person, size=SIZE, rate=Fraction(25))
    further.recall(session.memory())
    np.testing.assert_array_equal(further.render(Driven.of(points[7:])).frames, clip[7:])
