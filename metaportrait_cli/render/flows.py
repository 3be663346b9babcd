"""Where renderers get the flow of a picture from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence, CorrespondenceWarp


class Warp(Protocol):
    """The backward flow from one picture."""

    def __call__(self, driven: NDArray[np.float32]) -> Correspondence:
        """For driven landmarks (478, 3) in pixels of the crop."""
        ...


# From a crop (S, S, 3), its landmarks (478, 3) and the fade (G, G) at its borders.
WarpMaker = Callable[[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]], Warp]


def analytic_warp(
    crop: NDArray[np.uint8], landmarks: NDArray[np.float32], fade: NDArray[np.float32]
) -> Warp:
    """The flow that landmarks alone give; a `WarpMaker`."""
    return CorrespondenceWarp(landmarks, side=crop.shape[0], fade=fade)
