"""Distances that several trainings share; pictures are (B, 3, H, W), RGB in [0, 1], float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

PYRAMID_LEVELS = 4
EDGE_PLACE = 8


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


def edges_apart(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """How the strength of gradients differs inside the mask (B, 1, H, W), averaged over places a
    few pixels wide, so that an edge beside its place is no worse than none: (B,)."""
    inside = mask[..., :-1, :-1]
    strengths = [
        (x[..., :-1, 1:] - x[..., :-1, :-1]).abs() + (x[..., 1:, :-1] - x[..., :-1, :-1]).abs()
        for x in (image.mean(dim=1, keepdim=True), target.mean(dim=1, keepdim=True))
    ]
    ours, theirs = (F.avg_pool2d(x * inside, EDGE_PLACE, stride=EDGE_PLACE // 2) for x in strengths)
    return masked_l1(ours, theirs, F.avg_pool2d(inside, EDGE_PLACE, stride=EDGE_PLACE // 2))
