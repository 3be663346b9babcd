"""Pictures between 8-bit arrays, as files have them, and tensors, as networks take them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_tensor(frames: NDArray[np.uint8]) -> Tensor:
    """Pictures (B, H, W, 3) as float (B, 3, H, W) in [0, 1]."""
    return torch.tensor(frames).permute(0, 3, 1, 2).float() / 255
