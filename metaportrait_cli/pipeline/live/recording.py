"""What is shown, as a clip: pictures that come as they come, at a constant rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MetaPortraitError
from metaportrait_cli.media.writer import VideoWriter
from metaportrait_cli.pipeline.report import MARK

RATE = 25
LONGEST_SECONDS = 3600
NOTHING = "nothing was recorded"


class Recorder:
    """One recording at a time; what goes wrong with it stops nothing else, and is told at its end.

    Pictures are `size` × `size` pixels.
    """

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._path: Path | None = None
        self._clip: TakenClip | None = None
        self._trouble = NOTHING

    @property
    def active(self) -> bool:
        """Whether pictures are kept."""
        return self._path is not None

    def begin(self, path: Path) -> None:
        """From the next picture on; one that is under way goes on instead."""
        if self._path is None:
            self._path, self._trouble = path, NOTHING

    def add(self, picture: NDArray[np.uint8], time: float) -> None:
        """A picture that is shown from `time` (seconds) on."""
        with self._trouble_kept():
            if self._path is not None:
                self._clip = self._clip or TakenClip(self._path, size=self._size)
                self._clip.add(picture, time)

    def end(self) -> Path | str:
        """The whole file, or why there is none."""
        with self._trouble_kept():
            if self._clip is not None:
                path = self._clip.finish()
                self._path = self._clip = None
                return path
        self._path = None
        return self._trouble

    def give_up(self) -> None:
        """Leaves nothing behind."""
        if self._clip is not None:
            self._clip.give_up()
        self._path = self._clip = None

    @contextmanager
    def _trouble_kept(self) -> Iterator[None]:
        try:
            yield
        except (MetaPortraitError, OSError) as error:
            self._trouble = f"{NOTHING}: {error}"
            self.give_up()


class TakenClip:
    """Each picture stands until the next one comes."""

    def __init__(self, path: Path, *, size: int) -> None:
        """Begins a clip of `size` × `size` pixels; raises as `VideoWriter` does."""
        self.path = path
        self._writer = VideoWriter(path, width=size, height=size, rate=Fraction(RATE), comment=MARK)
        self._writer.__enter__()
        self._last: NDArray[np.uint8] | None = None
        self._began = 0.0
        self._written = 0

    def add(self, picture: NDArray[np.uint8], time: float) -> None:
        """A picture that is shown from `time` (seconds) on."""
        if self._last is None:
            self._began = time
        else:
            self._fill(time)
        self._last = picture

    def finish(self) -> Path:
        """Completes the file; without any picture there is none, and `MediaError` is raised."""
        if self._last is not None:
            self._fill(self._began + (self._written + 1) / RATE)
        self._writer.__exit__(None, None, None)
        return self.path

    def give_up(self) -> None:
        """Leaves nothing behind."""
        error = RuntimeError("given up")
        self._writer.__exit__(RuntimeError, error, None)

    def _fill(self, time: float) -> None:
        assert self._last is not None  # noqa: S101
        due = round(min(time - self._began, LONGEST_SECONDS) * RATE)
        for _ in range(due - self._written):
            self._writer.write(self._last)
            self._written += 1
