"""What is shown, as a clip: pictures that come as they come, at a constant rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.media.writer import VideoWriter
from metaportrait_cli.pipeline.report import MARK

RATE = 25
LONGEST_SECONDS = 3600


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
