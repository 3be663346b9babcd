"""A supervised ffmpeg: an argument list, errors kept in a file, and never left running."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Any

from metaportrait_cli.errors import FfmpegError

TAIL_BYTES = 4096
"""How much of the end of ffmpeg's messages is read back."""
GRACE_SECONDS = 30.0
"""How long an ffmpeg that closed its output may take to end."""
ENDED_FROM_OUTSIDE = 255
"""The status of an ffmpeg that was told to end by a signal, and obeyed."""
PIPE_BYTES = 1 << 20
"""A picture goes through such a pipe in a piece or two, not in a dozen, each of which wakes whoever
waits for it; no more is granted to everyone."""
_PR_SET_PDEATHSIG = 1

_CONTEXT = re.compile(r"^(\[[^\]]*\] ?)+")
"""The `[mov,mp4 @ 0x55d81]` in front of a message: addresses, of no use to the reader."""
_EPILOGUE = (
    "Conversion failed!",
    "Error opening input files",
    "Error opening output files",
    "Nothing was written into output file",
)


def end_with_parent() -> None:
    """Have this process killed when the thread that started it ends, as by a kill -9 of it all."""
    if sys.platform == "linux" and sys.executable:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


_ENDING_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks for what `end_with_parent` does, and becomes the program. A `preexec_fn` would do with less,
but forks all of this process, whose handlers then swallow a Ctrl-C or tell it twice."""


def _started(arguments: Sequence[str], **pipes: Any) -> subprocess.Popen[bytes]:
    """A process that ends with this one. Raises `FfmpegError` if it can't be run."""
    binary = shutil.which(arguments[0])
    if binary is None:
        raise FfmpegError(f"{arguments[0]} can't be run: install ffmpeg 5.1 or later")
    command = [binary, *arguments[1:]]
    if sys.platform == "linux" and sys.executable:
        launcher = [sys.executable, "-I", "-S", "-c", _ENDING_WITH_PARENT, str(os.getpid())]
        command = [*launcher, *command]
    try:
        return subprocess.Popen(command, start_new_session=True, **pipes)
    except OSError as error:
        raise FfmpegError(
            f"{arguments[0]} can't be run ({error.strerror}): install ffmpeg 5.1 or later"
        ) from error


def _widen(*pipes: IO[bytes] | None) -> None:
    """Has more wait in pipes, where the system grants it."""
    if sys.platform != "linux":
        return
    import fcntl  # noqa: PLC0415  not everywhere

    for pipe in pipes:
        if pipe is not None:
            with contextlib.suppress(OSError):  # whoever has many gets no more
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Child:
    """One ffmpeg process.

    Its messages go to a temporary file, since a pipe that nobody reads stops a chatty ffmpeg. It
    runs in a session of its own: a Ctrl-C at the terminal reaches only us, and we decide.
    """

    def __init__(
        self, arguments: Sequence[str], *, feed: bool = False, collect: bool = False
    ) -> None:
        """Start it; `feed` opens a pipe to its stdin, `collect` one from its stdout.

        Raises:
            FfmpegError: the binary can't be run.
        """
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        try:
            self.process = _started(
                arguments,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.PIPE if collect else subprocess.DEVNULL,
                stderr=self._messages,
            )
            _widen(self.process.stdin, self.process.stdout)
        except BaseException:
            self._messages.close()
            raise

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float | None = None) -> int:
        """Exit status, negative for a signal; one that outstays `timeout` seconds is killed."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        """Kill it if it still runs, and let go of its pipes; harmless when repeated."""
        if self.process.poll() is None:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what is still buffered has no reader any more
                    pipe.close()
        self.process.wait()
        self._messages.close()

    def message(self) -> str:
        """The most telling line of what ffmpeg said last, or an empty string."""
        self._messages.seek(0, 2)
        self._messages.seek(max(0, self._messages.tell() - TAIL_BYTES))
        return telling_line(self._messages.read().decode(errors="replace"))


def telling_line(messages: str) -> str:
    """Of several lines of ffmpeg's messages the last that says more than that it failed."""
    lines = [_CONTEXT.sub("", line).strip() for line in messages.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_EPILOGUE)]
    full = [line for line in lines if "No space left on device" in line]
    return (full or lines or [""])[-1]


def run(arguments: Sequence[str], *, task: str) -> None:
    """Run ffmpeg to its end.

    Raises:
        FfmpegError: it failed; the line begins with `task` ("writing x.mp4").
    """
    with Child(arguments) as child:
        status = child.wait()
        if status != 0:
            raise failure(child, status, task=task)


def failure(child: Child, status: int, *, task: str) -> FfmpegError:
    """The error for an ffmpeg that ended with `status` while doing `task`."""
    message = child.message()
    if "No space left on device" in message:
        return FfmpegError(
            f"{task}: no space left on the device: free some, or choose another folder"
        )
    if status < 0:
        return FfmpegError(
            f"{task}: ffmpeg was killed by signal {-status}: is the machine out of memory?"
        )
    if status == ENDED_FROM_OUTSIDE and not message:
        return FfmpegError(f"{task}: ffmpeg was ended from outside: run it again")
    return FfmpegError(f"{task}: ffmpeg ended with status {status}: {message or 'no message'}")
