"""Tells real mouths and eyes from repainted ones; needed for training alone.

Shapes: B patches, C channels, P the patch's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from metaportrait_cli.networks.layers import leaky_relu
from metaportrait_cli.networks.network import Network


@dataclass(frozen=True)
class RegionCriticConfig:
    in_width: int = 3 + 3
    """A picture, and maps of what it should show"""
    widths: tuple[int, ...] = (48, 96, 128, 128)
    """From half the patch's size down"""


@dataclass(frozen=True)
class Opinion:
    features: tuple[Tensor, ...]
    """Of each convolution, (B, C_i, P / 2^i, P / 2^i)"""
    realness: Tensor
    """(B, 1, P / 16 - 3, P / 16 - 3), above 0 for what seems real"""


class RegionCritic(Network):
    """Strided convolutions with spectral norm (Miyato et al., ICLR 2018), down to one look."""

    config_type = RegionCriticConfig

    def __init__(self, config: RegionCriticConfig) -> None:
        super().__init__(config)
        self.convs = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1))
            for before, after in pairwise((config.in_width, *config.widths))
        )
        self.head = spectral_norm(nn.Conv2d(config.widths[-1], 1, 4))

    def forward(self, patches: Tensor) -> Opinion:
        """`patches` (B, in_width, P, P)."""
        x, features = patches, []
        for conv in self.convs:
            x = leaky_relu(conv(x))
            features.append(x)
        return Opinion(features=tuple(features), realness=self.head(x))
