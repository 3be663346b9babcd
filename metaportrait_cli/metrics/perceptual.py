"""Likeness of pictures as a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from metaportrait_cli.networks.squeezenet import SqueezeNet


@torch.no_grad()
def lpips_like(network: SqueezeNet, result: Tensor, truth: Tensor) -> Tensor:
    """Distance of deep features, (B,) in [0, 1]: 0 for equal pictures.

    Zhang et al., CVPR 2018, the uncalibrated form (w = 1, their "off-the-shelf" networks): one
    less the cosine between the features of SqueezeNet 1.1 at each place, averaged over places
    and then over seven layers. It is half the published sum divided by the number of layers. The
    published linear weights ("lin") belong to torchvision's training of the same architecture,
    whose channels are others; values don't compare with published LPIPS tables.

    Pictures (B, 3, H, W), RGB in [0, 1], at least 32 pixels a side, are taken as they are, without
    a resize.
    """
    distances = []
    for a, b in zip(network(result), network(truth), strict=True):
        difference = _unit(a) - _unit(b)
        distances.append((difference**2).sum(1).mean(dim=(1, 2)) / 2)
    return torch.stack(distances).mean(0)


def _unit(features: Tensor) -> Tensor:
    """Features (B, C, h, w) at length 1 along C; zero stays zero."""
    return features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-8)
