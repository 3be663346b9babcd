"""Generators joined by small bounded queues, so that stages overlap and memory stays flat."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
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
