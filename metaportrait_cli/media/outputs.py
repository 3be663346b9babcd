"""Where results go: checked before the work, complete or absent after it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from metaportrait_cli.errors import UsageError

_NAME_BYTES = 255
"""The longest file name that common file systems take."""


def check_output(path: Path, *, overwrite: bool, is_input: Sequence[Path]) -> None:
    """Make sure that a result may be written to `path`, before any work is done for it.

    Raises:
        UsageError: it exists and `overwrite` is off, it is a folder or one of the files in
            `is_input`, or its folder is missing or read-only.
    """
    try:
        _check_folder(path)
        if path.is_dir():
            raise UsageError(f"{path} is a folder: add a file name")
        if not os.path.lexists(path):
            return
        for source in is_input:
            if path.exists() and source.exists() and path.samefile(source):
                raise UsageError(f"{path} is also an input: choose another name for the output")
        if not overwrite:
            raise UsageError(f"{path} exists: choose another name, or allow it with --overwrite")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not folder.exists():
        raise UsageError(f"folder {folder} doesn't exist: create it, or choose another")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: choose another place for {path.name}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"folder {folder} is read-only: choose another place for {path.name}")


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a hidden sibling of `path` to write to; it becomes `path` if all goes well.

    It bears the suffix of `path`. On any exception, Ctrl-C included, it is removed and a file
    that was at `path` stays as it was.

    Raises:
        UsageError: the folder is missing or read-only, or the name can't be taken.
    """
    _check_folder(path)
    partial = path.with_name(_partial_name(path.name, os.getpid()))
    try:
        yield partial
        try:
            os.replace(partial, path)
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _partial_name(name: str, process: int) -> str:
    stem, suffix = os.path.splitext(name)
    ending = f".{process}.partial{suffix}"
    room = _NAME_BYTES - 1 - len(os.fsencode(ending))
    stem = os.fsencode(stem)[:room].decode(errors="ignore")
    return f".{stem}{ending}"
