"""Reading and writing files of weights, whatever is in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metaportrait_cli.errors import WeightsError

LFS_POINTER = b"version https://git-lfs"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}.partial.", suffix=path.suffix
    )
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # mkstemp makes private files
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def reject_pointer(path: Path) -> None:
    """Raise WeightsError if the file is missing, empty, or a Git LFS pointer to the real one."""
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror}") from None
    if start == LFS_POINTER:
        raise WeightsError(
            f"{path}: is a Git LFS pointer, not the weights; fetch them with: git lfs pull"
        )
    if not start:
        raise WeightsError(f"{path}: is empty; download it again")
