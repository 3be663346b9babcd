"""The renderers that an evaluation compares, by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import UsageError
from metaportrait_cli.pipeline.render import AnalyticRenderer, Frames, Renderer
from metaportrait_cli.pipeline.source import Source

COPY = "copy"


class CopyRenderer:
    """Shows the source all the time: what a method must beat to be worth its while."""

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


_MAKERS: dict[str, Callable[[], Renderer]] = {COPY: CopyRenderer, "none": AnalyticRenderer}


def renderer_named(name: str) -> Renderer:
    """`copy` is the source itself, `none` the analytic warp. Raises `UsageError` for others."""
    if name not in _MAKERS:
        raise UsageError(f"--weights {name}: unknown; known are {', '.join(sorted(_MAKERS))}")
    return _MAKERS[name]()
