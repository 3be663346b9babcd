"""The portrait: picture, face and crop, as renderers get it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face

Lends = Literal["face", "head", "all"]
"""What further pictures lend: the face alone in the first one's colours, with hair and neck, or
everything, where all were taken from one place in one light."""


@dataclass(frozen=True)
class Source:
    """`picture` (H, W, 3) RGB with even H and W, the chosen `face` in its pixels, and its crop."""

    path: Path
    picture: NDArray[np.uint8]
    face: Face
    faces_seen: int
    crop: Crop
    turns: int = 0
    """Quarter turns counter-clockwise by which the file's picture was brought upright."""
    on_white: bool = False
    """Whether the file's picture is transparent somewhere, and shown before white."""
    strangers: tuple[Face, ...] = ()
    """Further faces in the picture: other people's"""
    others: tuple[Source, ...] = ()
    """Further pictures of the same person, used where they look more like what is driven."""
    lends: Lends = "face"

    def landmarks(self, size: int) -> NDArray[np.float32]:
        """The face's points (478, 3) in pixels of the crop scaled to `size`."""
        return self.crop.to_crop(self.face.points, size)
