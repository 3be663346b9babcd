"""Likeness of pictures as a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from metaportrait_cli.networks.squeezenet import SqueezeNet
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network


def bundled_features() -> SqueezeNet:
    """The network that ships; stored at half precision, which a CPU is slow with."""
    return load_network(SqueezeNet, bundled_path("squeezenet"), part="squeezenet").float()


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
    return feature_distance(unit_features(network, result), unit_features(network, truth))


@torch.no_grad()
def unit_features(network: SqueezeNet, pictures: Tensor) -> list[Tensor]:
    """Maps (B, C, h, w) of pictures at length 1 along C, to compare them several times."""
    maps = network(pictures.contiguous(memory_format=torch.channels_last))
    return [x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=1e-8) for x in maps]


def feature_distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """`lpips_like` of what `unit_features` gave, (B,)."""
    layers = [
        ((a - b) ** 2).sum(1).mean(dim=(1, 2)) / 2 for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(layers).mean(0)
