"""Keeps C++ libraries from writing to the user's terminal."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def native_stderr_closed() -> Iterator[None]:
    """Sends nowhere what is written to the standard error's file descriptor.

    MediaPipe and LiteRT write half a dozen lines for each model, and no setting stops them.
    """
    with _lock:
        try:
            kept = os.dup(2)
        except OSError:  # the user has closed it already
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)
