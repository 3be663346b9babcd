"""The renderer that shows the source all the time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.source import Source
from metaportrait_cli.render.protocol import Frames


class CopyRenderer:
    """Shows the source all the time: what a method must beat to be worth its while."""

    fixed_size = None
    keeps_detail = True

    def open(self, source: Source, *, size: int) -> CopySession:
        """Cuts the crop."""
        return CopySession(source.crop.cut(source.picture, size))


class CopySession:
    """One source crop (S, S, 3), whatever drives it."""

    def __init__(self, crop: NDArray[np.uint8]) -> None:
        self._crop = crop

    def render(self, driven: NDArray[np.float32]) -> Frames:
        """The crop (T, S, S, 3), once for each of the driven landmarks (T, 478, 3)."""
        return np.repeat(self._crop[None], len(driven), axis=0)
