"""The entry point: `metaportrait`, or `python -m metaportrait_cli`."""

from __future__ import annotations

import atexit
import os
import sys

from metaportrait_cli.cli.signals import (
    INTERRUPTED,
    Ending,
    Stopped,
    catch_signals,
    fill_closed_streams,
    leave,
)


def main() -> None:
    """Runs a command, and ends the process with its code."""
    ending = Ending()
    atexit.register(ending)  # first, so that it is called last
    try:
        run()
    except SystemExit as done:
        ending.code = done.code
        raise


def run() -> None:
    """Runs a command and exits with its code, as others than its own process may call it."""
    # numpy's helpers and OpenCV's wait for work by spinning: for systems and pictures as small as
    # ours they win nothing, for our own threads keep all cores busy, and took a third and a
    # twenty-fifth of all processor time. They have to be told before they are imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    fill_closed_streams()
    catch_signals()
    if sys.getfilesystemencoding() != "utf-8" and not all(map(str.isascii, sys.argv)):
        names = sys.getfilesystemencoding()
        leave(f"file names are {names} here and an argument isn't: set PYTHONUTF8=1", 2)
    try:
        from metaportrait_cli.cli.app import app  # noqa: PLC0415
    except ImportError as error:
        from metaportrait_cli.imports import cure  # noqa: PLC0415

        leave(cure(error), 1)
    try:
        app(prog_name="metaportrait")
    except KeyboardInterrupt:  # before a command has begun, or after it has ended
        leave("interrupted", INTERRUPTED)
    except Stopped as stopped:
        leave("terminated", stopped.status)


if __name__ == "__main__":
    main()
