"""Work on several cores: generators joined by small bounded queues, so that stages overlap and
memory stays flat, and equal work on threads side by side."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache, wraps
from typing import Generic, ParamSpec, TypeVar

T = TypeVar("T")
M = TypeVar("M")
R = TypeVar("R")
P = ParamSpec("P")
MOST_WAITING_BYTES = 64 << 20
"""Of large pictures fewer wait than of small ones."""


class _End:
    """What comes after the last item, with the error that ended the stage, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Line(Generic[T]):
    """What waits between the thread that makes it and the one that takes it."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._waiting: deque[T | _End] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._size = 0  # all that wait are about as large as the last one

    def has_room(self) -> bool:
        """Waits until one more may be made; False if nobody takes it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._is_free())
        return not self._stopped

    def _is_free(self) -> bool:
        count = len(self._waiting)
        return count < self._depth and self._size * count <= MOST_WAITING_BYTES

    def put(self, item: T | _End) -> None:
        """At the end, never waiting."""
        self._size = getattr(item, "nbytes", 0)
        with self._changed:
            self._waiting.append(item)
            self._changed.notify_all()

    def take(self) -> T | _End:
        """The first one, once it is there."""
        with self._changed:
            self._changed.wait_for(self._waiting.__len__)
            item = self._waiting.popleft()
            self._changed.notify_all()
        return item

    def stop(self) -> None:
        """Nothing more is taken."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


@contextmanager
def _closed_after(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Closes the iteration at the end of the block, if that can be."""
    try:
        yield items
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def prefetched(items: Iterable[T], *, depth: int) -> Generator[T, None, None]:
    """Runs the iteration on a thread, at most `depth` items ahead; errors come out here.

    Where items tell their size (`nbytes`), fewer of large ones wait. Leaving the loop early, by an
    exception too, stops the thread and closes the iteration.
    """
    line = _Line[T](depth)

    def work() -> None:
        end = _End()
        try:
            with _closed_after(iter(items)) as iterator:
                while line.has_room():
                    item = next(iterator, end)
                    if item is end:
                        break
                    line.put(item)
                    del item  # pictures may be large, and the next one takes its time
        except BaseException as caught:  # noqa: BLE001  handed over to the consumer
            end = _End(caught)
        line.put(end)  # whatever happened, or the consumer would wait for ever

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := line.take(), _End):
            yield item
            del item
        if item.error is not None:
            raise item.error
    finally:
        line.stop()
        thread.join()


def overlapped(
    items: Iterable[T], first: Callable[[T], M], then: Callable[[M], R]
) -> Generator[R, None, None]:
    """Each item through both functions, in order; while `then` has one, `first` has the next."""
    with closing(prefetched(map(first, items), depth=1)) as ahead:
        yield from map(then, ahead)


def foreseen(items: Iterable[T], look: Callable[[T], None], *, depth: int) -> Iterator[T]:
    """The items as they come, each looked at while `depth` before it are still to be taken."""
    coming = deque[T]()
    for item in items:
        look(item)
        coming.append(item)
        if len(coming) > depth:
            yield coming.popleft()
    yield from coming


def side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The function of each item, in their order, on as many threads as there are cores.

    It pays where most of the work is done by libraries that let other threads go on meanwhile.
    """
    if len(items) < 2 or getattr(_here, "helps", False):
        return [function(item) for item in items]
    return list(_helpers().map(function, items))


def by_turns(function: Callable[P, R]) -> Callable[P, R]:
    """The function, for half as many threads at a time as there are cores.

    Of threads that take small steps in Python one goes on at a time; handing that to and fro at
    every step takes them a twentieth of their time, which is saved while others of them wait for a
    network. Within it nothing may be waited for that another thread makes.
    """

    @wraps(function)
    def at_turn(*args: P.args, **kwargs: P.kwargs) -> R:
        if getattr(_here, "has_turn", False):
            return function(*args, **kwargs)
        with _turns():
            _here.has_turn = True
            try:
                return function(*args, **kwargs)
            finally:
                _here.has_turn = False

    return at_turn


@contextmanager
def aside() -> Iterator[ThreadPoolExecutor]:
    """A thread for what can be made meanwhile, one thing after another.

    It ends with the block at the latest: libraries die of threads that go on while Python ends.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="aside") as executor:
        try:
            yield executor
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


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


_here = threading.local()


@cache
def _cores() -> int:
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return known or 1


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), thread_name_prefix="helper", initializer=_begin_helping)


@cache
def _turns() -> threading.Semaphore:
    return threading.Semaphore(max(1, _cores() // 2))


def _begin_helping() -> None:
    # Who helps must not wait for other helpers: all might.
    _here.helps = True
