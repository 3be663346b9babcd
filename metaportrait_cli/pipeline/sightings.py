"""Faces in the frames of a clip, told in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.pursuit import Pursuit
from metaportrait_cli.face.track import CutDetector
from metaportrait_cli.media.reader import Frame
from metaportrait_cli.progress import Stopwatch
from metaportrait_cli.stages import prefetched

FRAMES_AHEAD = 8  # decoded frames that wait; bounds memory


class Watch(Protocol):
    """Knows where faces were last seen; whoever takes the sightings keeps it up to date."""

    @property
    def hints(self) -> list[NDArray[np.float32]]:
        """Boxes (x0, y0, x1, y1) to look near."""
        ...

    @property
    def lost(self) -> bool:
        """Whether it is time to look everywhere, which takes many times as long."""
        ...

    @property
    def all_faces(self) -> bool:
        """Whether small faces matter where there is a large one."""
        ...


@dataclass(frozen=True)
class Glance:
    """What one frame shows, and where that left the search for the next one's faces."""

    faces: list[Face]
    """From left to right"""
    everywhere: bool
    """Whether small and faint faces were looked for too."""
    turns: int
    """Quarter turns counter-clockwise that bring the shot upright; the faces lie in the frame as
    it is."""
    unchecked: int
    """See `Pursuit`"""


@dataclass(frozen=True)
class Sighting:
    """A glance at a frame of the clip."""

    time: Fraction
    """Seconds since the first frame."""
    shot: int
    """Counts from 0."""
    cut: bool
    """Whether the frame begins a new shot."""
    glance: Glance


class Diary(Protocol):
    """Glances that outlive a run, for one that goes on after it."""

    def earlier(self) -> Iterator[Glance]:
        """Of the clip's first frames, as far as they are known."""
        ...

    def add(self, glance: Glance) -> None:
        """That of the next frame."""
        ...


@dataclass(frozen=True)
class _Seen:
    """A decoded frame, and whether it begins a shot."""

    frame: Frame
    cut: bool

    @property
    def nbytes(self) -> int:
        return self.frame.nbytes


def _seen(frames: Iterable[Frame]) -> Iterator[_Seen]:
    cuts = CutDetector()
    for frame in frames:
        yield _Seen(frame, cuts.is_cut(frame.image))


def sightings(
    frames: Iterable[Frame],
    *,
    watch: Watch,
    detector: MediaPipeDetector,
    stopwatch: Stopwatch,
    diary: Diary | None,
) -> Generator[Sighting, None, None]:
    """One sighting a frame, in order; `watch` is asked about each before the next is looked at.

    Close it before `frames`, which another thread reads.
    """
    pursuit = Pursuit(detector)
    earlier = diary.earlier() if diary is not None else iter(())
    shot = 0
    ahead = prefetched(_seen(stopwatch.timed("decode", frames)), depth=FRAMES_AHEAD)
    try:
        for number, seen in enumerate(ahead):
            frame, cut = seen.frame, seen.cut
            with stopwatch("landmarks"):
                glance = next(earlier, None)
                if glance is not None:
                    pursuit.go_on(glance.faces, turns=glance.turns, unchecked=glance.unchecked)
                else:
                    glance = _glance(frame.image, pursuit, watch, anew=number == 0 or cut)
                    if diary is not None:
                        diary.add(glance)
            shot += cut
            yield Sighting(frame.time, shot, cut, glance)
    finally:
        ahead.close()


def _glance(image: NDArray[np.uint8], pursuit: Pursuit, watch: Watch, *, anew: bool) -> Glance:
    everywhere = anew or watch.lost
    if anew:
        faces = pursuit.begin(image, all_faces=watch.all_faces)
    elif everywhere:
        faces = pursuit.search(image, all_faces=watch.all_faces)
    else:
        faces = pursuit.follow(image, hints=watch.hints)
    return Glance(faces, everywhere, pursuit.turns, pursuit.unchecked)
