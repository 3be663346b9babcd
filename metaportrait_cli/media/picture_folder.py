"""A folder of numbered pictures, as a clip may be kept by those who go on working with it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError
from metaportrait_cli.media.outputs import atomic_folder, picture_name
from metaportrait_cli.media.stills import write_still


class FolderWriter:
    """Writes `000000.png` and so on; the folder appears when the `with` block ends well, in place
    of an earlier one.

    Takes the place of `VideoWriter`; a folder has neither a rate nor sound.
    """

    def __init__(self, path: Path, *, comment: str = "") -> None:
        """`comment` stands in every picture."""
        self._path, self._comment = path, comment
        self._written = 0
        self._resources = ExitStack()
        self._partial: Path | None = None

    def __enter__(self) -> Self:
        """Raises `UsageError` if the place can't take a folder."""
        self._partial = self._resources.enter_context(atomic_folder(self._path))
        return self

    def write(self, image: NDArray[np.uint8]) -> None:
        """Adds one (H, W, 3) RGB picture."""
        if self._partial is None:
            raise ValueError("write() needs a `with` block around the writer")
        write_still(self._partial / picture_name(self._written), image, comment=self._comment)
        self._written += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._written == 0:
            error = MediaError(f"{self._path} is not written: there are no frames")
            with self._resources:
                raise error
        self._resources.__exit__(kind, error, trace)
