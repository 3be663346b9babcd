"""Faces in the frames of a clip, told in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.detector import Face, MediaPipeDetector
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
class Sighting:
    """What one frame shows: its faces from left to right."""

    time: Fraction
    """Seconds since the first frame."""
    shot: int
    """Counts from 0."""
    cut: bool
    """Whether the frame begins a new shot."""
    everywhere: bool
    """Whether small and faint faces were looked for too."""
    faces: list[Face]
    turns: int
    """Quarter turns counter-clockwise that bring the shot upright; the faces lie in the frame as
    it is."""


def sightings(
    frames: Iterable[Frame], *, watch: Watch, detector: MediaPipeDetector, stopwatch: Stopwatch
) -> Generator[Sighting, None, None]:
    """One sighting a frame, in order; `watch` is asked about each before the next is looked at.

    Close it before `frames`, which another thread reads.
    """
    cuts = CutDetector()
    pursuit = Pursuit(detector)
    shot = 0
    ahead = prefetched(stopwatch.timed("decode", frames), depth=FRAMES_AHEAD)
    try:
        for number, frame in enumerate(ahead):
            with stopwatch("landmarks"):
                cut = cuts.is_cut(frame.image)
                everywhere = number == 0 or cut or watch.lost
                if number == 0 or cut:
                    faces = pursuit.begin(frame.image, all_faces=watch.all_faces)
                elif everywhere:
                    faces = pursuit.search(frame.image, all_faces=watch.all_faces)
                else:
                    faces = pursuit.follow(frame.image, hints=watch.hints)
            shot += cut
            yield Sighting(frame.time, shot, cut, everywhere, faces, pursuit.turns)
    finally:
        ahead.close()
