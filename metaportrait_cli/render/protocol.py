"""From driven landmarks to pictures of the crop: the seam where renderers are exchanged.

A renderer works in windows of consecutive frames. It does its source-only work once, in `open`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.source import Source

Frames = NDArray[np.uint8]  # (T, S, S, 3) RGB


class Session(Protocol):
    """One source, ready to be driven."""

    def render(self, driven: NDArray[np.float32]) -> Frames:
        """Pictures of the crop for driven landmarks (T, 478, 3) in pixels of the crop.

        Of the size asked for, or of the network's own; composing scales them.
        """
        ...


class Renderer(Protocol):
    """Makes sessions; holds weights, if any."""

    @property
    def fixed_size(self) -> int | None:
        """The side of the pictures that its network paints, if it paints whole ones."""
        ...

    @property
    def keeps_detail(self) -> bool:
        """Whether larger pictures show what detail the source has, rather than enlarged paint."""
        ...

    def open(self, source: Source, *, size: int) -> Session:
        """Does all work that depends on the source alone, for output of `size` × `size`.

        Further pictures of the source take no part; see `views.open_views`.
        """
        ...


class Enhancer(Protocol):
    """Takes rendered windows in order and gives enhanced ones; may lag, must not lose a frame."""

    def window(self, session: Session, driven: NDArray[np.float32], /) -> Any:
        """Renders driven landmarks (T, 478, 3) with whatever `enhance` will want to know."""
        ...

    def enhance(self, windows: Iterable[Any], source: Source) -> Iterator[Frames]:
        """What `window` gave → pictures (n, S, S, 3) of the same frames in the same order."""
        ...
