"""What tells a network how the face is to look: prior flow, landmark picture, unknown mouth.

The same arrays are made in training and in use, from landmarks alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import CorrespondenceWarp
from metaportrait_cli.face.landmark_image import filled_polygon, landmark_image

GRID = 128
"""Side of all condition maps. Twice as fine would cost 3 times as much per frame, in numpy, and
differ from this one by a fraction of a pixel along the lids and lips."""


@dataclass(frozen=True)
class Condition:
    """One driven frame.

    `flow` (G, G, 2) float32, backward: source position less output position, (x, y), as a share of
    half the crop's side, so that the crop spans [-1, 1]. `lines` (G, G, 3) uint8, the landmark
    image. `gap` (G, G) uint8, how much of a pixel is mouth opening that the source doesn't show.
    """

    flow: NDArray[np.float32]
    lines: NDArray[np.uint8]
    gap: NDArray[np.uint8]


class Conditioner:
    """Makes the conditions of driven frames of one source.

    `source` (478, 3) in pixels of the crop of `side`; `fade` (G, G), see `CorrespondenceWarp`.
    """

    def __init__(
        self, source: NDArray[np.float32], *, side: int, fade: NDArray[np.float32]
    ) -> None:
        self.source_points = source
        self._side = side
        self._warp = CorrespondenceWarp(source, side=side, fade=fade)
        self.source_lines = landmark_image(source, side=side, size=GRID)

    def __call__(self, driven: NDArray[np.float32]) -> Condition:
        """The condition for driven landmarks (478, 3) in pixels of the crop."""
        found = self._warp(driven)
        return Condition(
            flow=found.shift * np.float32(2 / self._side),
            lines=landmark_image(driven, side=self._side, size=GRID),
            gap=filled_polygon(found.mouth_gap, side=self._side, size=GRID),
        )
