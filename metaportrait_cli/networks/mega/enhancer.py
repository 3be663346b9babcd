"""G_enh: the base model's picture at twice the side, one picture at a time (figure 10, A.2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import SpectralConv2d
from metaportrait_cli.networks.mega.blocks import Residual, StandardConv, upsampled
from metaportrait_cli.networks.network import Network


@dataclass(frozen=True)
class MegaEnhancerConfig:
    """The appendix speaks of two upsamplings, which don't reach 1024; its figure has four."""

    size: int = 512
    """Side of the base model's pictures"""
    encoder: tuple[int, ...] = (64, 128, 256, 512)
    channels: int = 96
    depth: int = 16
    blocks_3d: int = 3
    blocks_2d: int = 8
    up: tuple[int, ...] = (512, 256, 128, 128)
    """Widths after each doubling; one more than the encoder halves"""
    high: tuple[int, ...] = (128, 64, 32)
    """Widths of the blocks at full size"""
    groups: int = 32

    def __post_init__(self) -> None:
        """Raises `ValueError` where sizes don't go together."""
        if len(self.up) != len(self.encoder) or self.size % (1 << (len(self.encoder) - 1)):
            raise ValueError("the enhancer must double once more than it halves")

    @classmethod
    def paper(cls) -> Self:
        """From 512² to 1024²: 53.5 million parameters."""
        return cls()

    @classmethod
    def lite(cls) -> Self:
        """From 256² to 512²."""
        return cls(
            size=256,
            encoder=(32, 64, 128, 128),
            channels=32,
            blocks_3d=1,
            blocks_2d=3,
            up=(128, 64, 32, 32),
            high=(32, 16),
            groups=16,
        )


class MegaEnhancer(Network):
    """(B, 4, S, S) in [0, 1], colours and matte -> the same at (B, 4, 2 S, 2 S).

    The paper's sees and paints colours alone.
    """

    config_type = MegaEnhancerConfig

    def __init__(self, config: MegaEnhancerConfig) -> None:
        super().__init__(config)
        groups, inner = config.groups, config.encoder[-1]

        def block(before: int, after: int) -> Residual:
            return Residual(before, after, groups=groups, dimensions=2)

        self.first = SpectralConv2d(4, config.encoder[0], kernel=7)
        self.down = nn.ModuleList(block(a, b) for a, b in pairwise(config.encoder))
        flat = config.channels * config.depth
        self.unfold = StandardConv(inner, flat, kernel=1, dimensions=2)
        self.blocks_3d = nn.Sequential(
            *(
                Residual(config.channels, config.channels, groups=groups, dimensions=3)
                for _ in range(config.blocks_3d)
            )
        )
        self.fold = StandardConv(flat, inner, kernel=1, dimensions=2)
        self.blocks_2d = nn.Sequential(*(block(inner, inner) for _ in range(config.blocks_2d)))
        self.up = nn.ModuleList(block(a, b) for a, b in pairwise((inner, *config.up)))
        widths = (config.up[-1], *config.high)
        self.high = nn.Sequential(*(block(a, b) for a, b in pairwise(widths)))
        self.norm = nn.GroupNorm(groups, config.high[-1])
        self.last = SpectralConv2d(config.high[-1], 4, kernel=3)

    def forward(self, image: Tensor) -> Tensor:
        config = self.config
        x = self.first(image)
        for block in self.down:
            x = F.avg_pool2d(block(x), 2)  # down to 64²
        side = x.shape[-1]
        x = self.unfold(F.relu(x)).view(len(x), config.channels, config.depth, side, side)
        x = self.blocks_2d(self.fold(self.blocks_3d(x).flatten(1, 2)))
        for block in self.up:
            x = block(upsampled(x))
        x = self.last(F.relu(self.norm(self.high(x))))
        # The paper ends in a tanh, for pictures from -1 to 1; ours go from 0 to 1.
        return (torch.tanh(x) + 1) / 2
