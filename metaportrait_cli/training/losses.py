"""Distances that several trainings share; pictures are (B, 3, H, W), RGB in [0, 1], float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.discriminator import Judgement

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


def painter_hinge(seen: Sequence[Judgement]) -> Tensor:
    """L_adv of the generator, mean over scales."""
    return -torch.stack([each.logits.float().mean() for each in seen]).mean()


def critic_hinge(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """The discriminator's, mean over scales."""
    scales = [
        F.relu(1 - r.logits.float()).mean() + F.relu(1 + f.logits.float()).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(scales).mean()


def feature_matching(seen: Sequence[Judgement], real: Sequence[Judgement]) -> Tensor:
    """L_FM: mean absolute difference of the discriminator's features, over layers and scales."""
    layers = [
        F.l1_loss(ours.float(), theirs.float())
        for s, r in zip(seen, real, strict=True)
        for ours, theirs in zip(s.features, r.features, strict=True)
    ]
    return torch.stack(layers).mean()
