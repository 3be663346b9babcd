"""A place for one thing, where the newest one wins: nobody waits for what is out of date."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Between one thread that puts and one that takes; what wasn't taken in time is counted."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Never waits; replaces what nobody has taken."""
        with self._changed:
            self.dropped += self._item is not None
            self._item = item
            self._changed.notify()

    def take(self, seconds: float | None = None) -> T | None:
        """The newest thing, once; `None` if there is none within so many seconds, or no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, seconds)
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it was closed; something may still be there to take."""
        with self._changed:
            return self._closed and self._item is None
