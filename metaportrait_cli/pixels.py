"""Pictures between 8-bit arrays, as files have them, and tensors, as networks take them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_tensor(pictures: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Pictures (B, H, W, C) in [0, 255] as float (B, C, H, W) in [0, 1]."""
    planes = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    return planes.to(device).float() / 255


def as_pictures(planes: Tensor) -> NDArray[np.uint8]:
    """Float (B, C, H, W) as pictures (B, H, W, C), cut to [0, 1] and rounded to 8 bits."""
    rounded = planes.float().clamp(0, 1).mul_(255).round_().to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).cpu().numpy()
