"""Distances that several trainings share; pictures are (B, 3, H, W), RGB in [0, 1], float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

PYRAMID_LEVELS = 4


def pyramid_l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, averaged over halvings of the size: (B,)."""
    total = torch.zeros(len(image), device=image.device)
    difference = image - target
    for level in range(PYRAMID_LEVELS):
        if level:
            difference = F.avg_pool2d(difference, 2)
        total = total + difference.abs().mean(dim=(1, 2, 3)) / PYRAMID_LEVELS
    return total


def masked_l1(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference inside the mask (B, 1, H, W): (B,); 0 where the mask is empty."""
    difference = ((image - target).abs().mean(dim=1, keepdim=True) * mask).sum(dim=(1, 2, 3))
    return difference / (mask.sum(dim=(1, 2, 3)) + 1)
