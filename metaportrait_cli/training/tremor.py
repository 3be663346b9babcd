"""How landmarks tremble that a detector finds: what is learnt from steady ones must stand it.

Measured on thirteen people's clips, in the head's own frame, as second differences of the calmer
half of consecutive frames: neighbouring points tremble together.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIZE: Final = 2.2e-3
"""Standard deviation of a coordinate, in widths of the face: twice what was measured, for half as
much shaking as with once, and pictures as near"""
REACH: Final = 0.07
"""In widths of the face: points so far apart tremble together by 0.6, three times as far hardly"""
OWN: Final = 1e-4
"""Of a point's variance that is its own, for the matrix to have a root"""


class Tremor:
    """Of one person's face."""

    def __init__(self, points: NDArray[np.float32]) -> None:
        """`points` (478, 3) of the face, in any unit; trembling is then in the same."""
        places = torch.from_numpy(points[:, :2]).double()
        width = float(np.ptp(points[:, 0]))
        together = torch.exp(-0.5 * (torch.cdist(places, places) / (REACH * width)) ** 2)
        root = torch.linalg.cholesky(together + OWN * torch.eye(len(places)))
        self._root = (SIZE * width * root).float()  # (478, 478)

    def drawn(self, count: int, *, seed: int) -> Tensor:
        """What is to be added to landmarks, (`count`, 478, 3), on the CPU."""
        draw = torch.Generator().manual_seed(seed)
        return self._root @ torch.randn(count, len(self._root), 3, generator=draw)
