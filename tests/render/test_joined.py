"""Several pictures of one person, joined before they are repainted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import Face
from metaportrait_cli.face.regions import Kind, OwnRegions
from metaportrait_cli.face.source import Lends, Source
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.render.joined import JoinedSession
from metaportrait_cli.render.mouths.shown import ShownMouth
from metaportrait_cli.render.protocol import Driven, Rendered, Repainting, Session
from tests.face.test_correspondence import turned

SIZE = 128
STRETCHED = 0.3


@dataclass
class Flat(Session):
    """A view of one grey level, its `stretched` half enlarged."""

    level: int
    stretched: slice
    wholes: int = 0
    faces: int = 0
    repainted: list[int] = field(default_factory=list)
    expects_turns: bool = False

    def __post_init__(self) -> None:
        self.crop = np.full((SIZE, SIZE, 3), self.level, np.uint8)

    def expect_turns(self) -> None:
        self.expects_turns = True

    def regions(self) -> Repainting:
        return self

    def repainted_by(self, networks: Mapping[Kind, RegionNetwork]) -> Repainting:
        return self

    def render(self, driven: Driven) -> Rendered:
        raise AssertionError

    def changes(self, points: NDArray[np.float32]) -> Sequence[None]:
        return [None] * len(points)

    def warped(self, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        raise AssertionError

    def moved(
        self, points: NDArray[np.float32], change: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.uint8], Correspondence]:
        self.wholes += 1
        shift = np.zeros((SIZE, SIZE, 2), np.float32)
        middle = SIZE / 2
        away = np.arange(SIZE) + 0.5 - middle
        shift[:, self.stretched, 0] = ((STRETCHED - 1) * away)[self.stretched]
        return self.crop.copy(), Correspondence(shift, points[:4, :2], SIZE)

    def face(
        self, points: NDArray[np.float32], box: tuple[slice, slice]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        self.faces += 1
        return self.crop[box].copy(), points[:4, :2]

    def repaint(
        self,
        frames: NDArray[np.uint8],
        driven: NDArray[np.float32],
        gaps: Sequence[NDArray[np.float32]],
        own: Sequence[OwnRegions] | None = None,
        shown: Sequence[ShownMouth] | None = None,
    ) -> None:
        assert own is not None
        assert shown is not None
        assert len(own) == len(shown) == len(gaps) == len(frames)
        self.repainted.append(len(frames))


LEFT, RIGHT = slice(0, SIZE // 2), slice(SIZE // 2, SIZE)


@pytest.fixture
def source(portrait_face: Face) -> Source:
    crop = Crop.around(portrait_face.points, within=(512, 512))
    picture = np.zeros((512, 512, 3), np.uint8)
    view = Source(Path("p.png"), picture, portrait_face, faces_seen=1, crop=crop)
    return replace(view, others=(view,), lends="all")


def test_each_side_of_a_head_comes_from_where_it_is_less_stretched(source: Source) -> None:
    views = [Flat(50, LEFT), Flat(200, RIGHT)]
    session = JoinedSession(source, views, size=SIZE, rate=None)
    frame = session.render(Driven.of(source.landmarks(SIZE)[None])).frames[0, ..., 0]
    assert (frame[:, :40] > 190).mean() > 0.99
    assert (frame[:8, -40:] < 60).mean() > 0.99  # beside eyes and mouth


@pytest.mark.parametrize(("lends", "expects"), [("face", True), ("head", True), ("all", False)])
def test_turns_are_expected_of_what_is_moved_whole(
    source: Source, lends: Lends, expects: bool
) -> None:
    views = [Flat(50, LEFT), Flat(200, RIGHT)]
    JoinedSession(replace(source, lends=lends), views, size=SIZE, rate=None).expect_turns()
    assert [view.expects_turns for view in views] == [expects, False]


def test_what_is_joined_is_repainted_once(source: Source) -> None:
    views = [Flat(50, LEFT), Flat(200, RIGHT)]
    session = JoinedSession(replace(source, lends="face"), views, size=SIZE, rate=Fraction(25))
    session.render(Driven.of(np.repeat(source.landmarks(SIZE)[None], 3, axis=0)))
    assert [view.repainted for view in views] == [[3], []]
    # What lends its face alone is never moved as a whole, and once for mouth, eyes and all.
    assert (views[0].wholes, views[1].wholes) == (3, 0)
    assert views[1].faces == 3


def test_what_moves_ahead_is_not_remembered_yet(source: Source) -> None:
    points = source.landmarks(SIZE)
    turning = [turned(points, degrees=float(angle)) for angle in range(-12, 12)]
    windows = [Driven.of(np.stack(turning[k : k + 6]), first=k) for k in range(0, 24, 6)]

    def opened() -> JoinedSession:
        views = [Flat(50, LEFT), Flat(200, RIGHT)]
        other = replace(source.face, points=turned(source.face.points, degrees=20.0))
        both = replace(source, others=(replace(source, face=other, others=()),))
        return JoinedSession(both, views, size=SIZE, rate=Fraction(25))

    one, ahead = opened(), opened()
    with closing(ahead.stream(windows)) as stream:
        for window, rendered in zip(windows, stream, strict=True):
            assert (rendered.frames == one.render(window).frames).all()
            assert (ahead.memory()["head"] == one.memory()["head"]).all()
    assert 0.01 < one.memory()["head"][1] < 0.99
