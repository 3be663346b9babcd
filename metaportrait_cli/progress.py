"""How far a run is, told to whoever asks, and where its time goes."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[str, int, int | None], None]
"""Called as (stage, frames done, frames in all if known)."""


def silent(_stage: str, _done: int, _total: int | None) -> None:
    """The progress callback that does nothing."""


class Stopwatch:
    """Seconds spent in each named stage; a stage inside another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._inner = threading.local()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Adds the time inside the block to the stage."""
        outer = getattr(self._inner, "seconds", 0.0)
        self._inner.seconds = 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.seconds[stage] += elapsed - self._inner.seconds
            self._inner.seconds = outer + elapsed

    def timed(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Passes items on and adds the time that each takes to come."""
        iterator = iter(items)
        while True:
            with self(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item
