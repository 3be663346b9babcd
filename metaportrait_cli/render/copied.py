"""The renderer that shows the source all the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.source import Source
from metaportrait_cli.render.opening import Rendering
from metaportrait_cli.render.protocol import Driven, Rendered, Session


def without_weights(on_notice: Callable[[str], None]) -> Rendering:
    """See `named`."""
    return Rendering(CopyRenderer())


class CopyRenderer:
    """What a method must beat to be worth its while."""

    fixed_size = None
    keeps_detail = True

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> CopySession:
        """Cuts the crop; further pictures have nothing to add."""
        return CopySession(source.crop.cut(source.picture, size))


@dataclass(frozen=True)
class CopySession(Session):
    """One source crop (S, S, 3), whatever drives it."""

    crop: NDArray[np.uint8]

    def render(self, driven: Driven) -> Rendered:
        """The crop, once a frame."""
        return Rendered(np.repeat(self.crop[None], len(driven), axis=0))
