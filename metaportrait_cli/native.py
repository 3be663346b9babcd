"""Keeps C++ libraries from writing to the user's terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

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


def vision_tasks() -> Any:
    """`mediapipe.tasks.python.vision`.

    MediaPipe's audio part, which nobody here needs, is imported beside it, and takes longer than
    all else: it asks a compiler for a library to record sound with, and can do without.
    """
    wanted = "sounddevice"
    with _lock:
        hidden = "mediapipe" not in sys.modules and wanted not in sys.modules
        if hidden:
            sys.modules[wanted] = None  # type: ignore[assignment]  an import of it fails
        try:
            return import_module("mediapipe.tasks.python.vision")
        finally:
            if hidden:
                del sys.modules[wanted]
