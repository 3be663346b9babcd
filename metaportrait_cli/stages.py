"""Work on several cores: generators joined by small bounded queues, so that stages overlap and
memory stays flat, and equal work on threads side by side."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Generic, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")
MOST_WAITING_BYTES = 256 << 20
"""Of large pictures fewer wait than of small ones."""


class _End:
    """What comes after the last item, with the error that ended the stage, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(items: Iterable[T], *, depth: int) -> Generator[T, None, None]:
    """Runs the iteration on a thread, at most `depth` items ahead; errors come out here.

    Where items tell their size (`nbytes`), fewer of large ones wait. Leaving the loop early, by an
    exception too, stops the thread and closes the iteration.
    """
    line: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: T | _End) -> bool:
        size = getattr(item, "nbytes", 0)
        while not stop.is_set():
            # All that wait are about as large as this one.
            if size * line.qsize() <= MOST_WAITING_BYTES:
                try:
                    line.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return True
            stop.wait(0.01)
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


def side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The function of each item, in their order, on as many threads as there are cores.

    It pays where most of the work is done by libraries that let other threads go on meanwhile.
    """
    if len(items) < 2 or getattr(_here, "helps", False):
        return [function(item) for item in items]
    return list(_helpers().map(function, items))


class Once(Generic[T]):
    """Calls a function when it is first asked for what that gives; threads wait for each other."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: list[T] = []

    def __call__(self) -> T:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
        return self._made[0]

    def begun(self) -> Self:
        """The same, with a thread at work; what goes wrong there goes wrong again when asked."""
        threading.Thread(target=self._begin, name="begun").start()
        return self

    def _begin(self) -> None:
        with suppress(Exception):
            self()


_here = threading.local()


@cache
def _helpers() -> ThreadPoolExecutor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores, thread_name_prefix="helper", initializer=_begin_helping)


def _begin_helping() -> None:
    # Who helps must not wait for other helpers: all might.
    _here.helps = True
