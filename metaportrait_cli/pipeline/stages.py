"""Generators joined by small bounded queues, so that stages overlap and memory stays flat."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[str, int, int | None], None]
"""Called as (stage, frames done, frames in all if known)."""


def silent(_stage: str, _done: int, _total: int | None) -> None:
    """The progress callback that does nothing."""


class _End:
    """What comes after the last item, with the error that ended the stage, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(items: Iterable[T], *, depth: int) -> Generator[T, None, None]:
    """Runs the iteration on a thread, at most `depth` items ahead; errors come out here.

    Leaving the loop early, by an exception too, stops the thread and closes the iteration.
    """
    line: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: T | _End) -> bool:
        while not stop.is_set():
            try:
                line.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        error: BaseException | None = None
        iterator = iter(items)
        try:
            for item in iterator:
                if not put(item):
                    break
        except BaseException as caught:  # noqa: BLE001  handed over to the consumer
            error = caught
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        put(_End(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = line.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stop.set()
        thread.join()


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
