"""What may change the flow that landmarks alone give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence

# Of the flows from one picture: driven landmarks (478, 3) in pixels of the crop and the flow found
# for them → the flow put right.
Correction = Callable[[NDArray[np.float32], Correspondence], Correspondence]
# From a crop (S, S, 3), its landmarks (478, 3) and the fade (G, G) at its borders.
CorrectionMaker = Callable[
    [NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]], Correction
]


def uncorrected(
    crop: NDArray[np.uint8], landmarks: NDArray[np.float32], fade: NDArray[np.float32]
) -> Correction:
    """Leaves flows as they are; a `CorrectionMaker`."""
    return lambda _driven, found: found
