"""Ends from outside, and streams that are closed: what must be in place before anything else.

Imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
PACKAGE = str(Path(__file__).parent.parent)
COMMAND_LINE = (str(Path(__file__).parent), str(Path(PACKAGE, "__main__.py")))


class Stopped(SystemExit):
    """The system, or the user by other means than the keyboard, wants an end."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Ending:
    """The last thing that Python does: the end, with the code of a command.

    It would take all modules apart first, for a sixth of a second of a run.
    """

    def __init__(self) -> None:
        self.code: object = None

    def __call__(self) -> None:
        """Lets Python go on where there is no code, or something to be told yet."""
        if isinstance(self.code, int):
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(self.code)


def leave(text: str, code: int) -> NoReturn:
    """One line, and the end at once: nothing is under way that would have to be undone."""
    with suppress(OSError):
        os.write(2, f"error: {text}\n".encode())
    os._exit(code)


def fill_closed_streams() -> None:
    """Opens the null device for streams that are closed.

    Files opened later would get their numbers otherwise, and messages of libraries in them.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def catch_signals() -> None:
    """Interrupts become exceptions, which clean up; not within an import, which may lose them."""
    for name, usual in (
        ("SIGINT", signal.default_int_handler),
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),  # none on Windows
    ):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == usual:
            signal.signal(number, _caught)


def _caught(number: int, frame: FrameType | None) -> None:
    importing, busy = _doing(frame)
    code = INTERRUPTED if number == signal.SIGINT else 128 + number
    if importing and not busy:
        leave("interrupted" if code == INTERRUPTED else "terminated", code)
    elif importing:
        again = threading.Timer(0.05, signal.raise_signal, [number])
        again.daemon = True
        again.start()
    elif code == INTERRUPTED:
        raise KeyboardInterrupt
    else:
        raise Stopped(code)


def _doing(frame: FrameType | None) -> tuple[bool, bool]:
    """Whether an import is under way, and whether a function of the library is."""
    importing = busy = False
    while frame is not None:
        code = frame.f_code
        importing |= code.co_filename.startswith("<frozen importlib")
        busy |= (
            code.co_filename.startswith(PACKAGE)
            and not code.co_filename.startswith(COMMAND_LINE)
            and code.co_name != "<module>"
        )
        frame = frame.f_back
    return importing, busy
