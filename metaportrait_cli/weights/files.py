"""What can be told of a file of weights from outside."""

from __future__ import annotations

from pathlib import Path

from metaportrait_cli.errors import WeightsError

LFS_POINTER = b"version https://git-lfs"


def reject_pointer(path: Path) -> None:
    """Raise WeightsError if the file is missing, empty, or a Git LFS pointer to the real one.

    So it does for what is no regular file: a pipe would be waited for.
    """
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path}: is no regular file; copy it to one first")
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
