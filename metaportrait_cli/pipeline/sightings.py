"""Faces in the frames of a clip: looked for in parallel, told in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.detector import Face, MediaPipeDetector
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


@dataclass(frozen=True)
class _Look:
    """One frame on its way through a worker."""

    time: Fraction
    cut: bool
    everywhere: bool
    faces: Future[list[Face]]


def sightings(
    frames: Iterable[Frame], *, watch: Watch, model: Path, workers: int, stopwatch: Stopwatch
) -> Generator[Sighting, None, None]:
    """One sighting a frame, in order. `watch` is asked ahead of them, `workers` frames at most.

    Close it before `frames`, which another thread reads.
    """
    own = threading.local()
    detectors: list[MediaPipeDetector] = []

    def look(
        image: NDArray[np.uint8], hints: list[NDArray[np.float32]], everywhere: bool
    ) -> list[Face]:
        if not hasattr(own, "detector"):
            own.detector = MediaPipeDetector(model)
            detectors.append(own.detector)
        with stopwatch("landmarks"):
            if everywhere:
                return own.detector.search(image)
            return own.detector.detect_all(image, hints=hints)

    shot = 0

    def seen(look: _Look) -> Sighting:
        nonlocal shot
        shot += look.cut
        return Sighting(look.time, shot, look.cut, look.everywhere, look.faces.result())

    cuts = CutDetector()
    pending: deque[_Look] = deque()
    first = True
    pool = ThreadPoolExecutor(workers, thread_name_prefix="landmarks")
    ahead = prefetched(stopwatch.timed("decode", frames), depth=FRAMES_AHEAD)
    try:
        for frame in ahead:
            cut = cuts.is_cut(frame.image)
            everywhere = first or cut or watch.lost
            if everywhere:
                # What is under way still tells where the faces are.
                while pending:
                    yield seen(pending.popleft())
                everywhere = first or cut or watch.lost
            first = False
            hints = [] if cut else watch.hints
            faces = pool.submit(look, frame.image, hints, everywhere)
            pending.append(_Look(frame.time, cut, everywhere, faces))
            if everywhere or len(pending) > workers:
                yield seen(pending.popleft())
        while pending:
            yield seen(pending.popleft())
    finally:
        ahead.close()
        pool.shutdown(wait=True, cancel_futures=True)
        for detector in detectors:
            detector.close()
