"""What may change the motion that landmarks alone give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.head_sheet import Layout

Points = NDArray[np.float32]
Grid = NDArray[np.float32]

# Of the flows from one picture: driven landmarks (478, 3) in pixels of the crop and the flow found
# for them → the flow put right.
Correction = Callable[[Points, Correspondence], Correspondence]
# The same of one picture's sheet.
LayoutCorrection = Callable[[Points, Layout], Layout]


def unchanged(_driven: Points, found: Layout) -> Layout:
    """A `LayoutCorrection` that has nothing to say."""
    return found


class Corrections(Protocol):
    """Makes the corrections of one picture: a crop (S, S, 3) with its landmarks (478, 3), whose
    motion the `fade` (G, G) ends at its borders."""

    def of_flow(self, crop: NDArray[np.uint8], landmarks: Points, fade: Grid) -> Correction:
        """Where one flow moves the whole picture."""
        ...

    def of_layers(
        self,
        crop: NDArray[np.uint8],
        landmarks: Points,
        fade: Grid,
        *,
        known: Grid,
        plate: NDArray[np.uint8],
    ) -> LayoutCorrection:
        """Where the person moves before a background, the `plate` (S, S, 3); `known` (G, G, 3) is
        what the sheet knows of the source."""
        ...


class Uncorrected:
    """Leaves motion as it is."""

    def of_flow(self, crop: NDArray[np.uint8], landmarks: Points, fade: Grid) -> Correction:
        """See `Corrections`."""
        return lambda _driven, found: found

    def of_layers(
        self,
        crop: NDArray[np.uint8],
        landmarks: Points,
        fade: Grid,
        *,
        known: Grid,
        plate: NDArray[np.uint8],
    ) -> LayoutCorrection:
        """See `Corrections`."""
        return unchanged
