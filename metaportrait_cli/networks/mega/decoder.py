"""Projection and G_2D: from a turned volume to a picture (equation 2, figure 9 d)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import SpectralConv2d
from metaportrait_cli.networks.mega.blocks import Residual, StandardConv, upsampled
from metaportrait_cli.networks.mega.config import MegaConfig


class Decoder(nn.Module):
    """(B, C, D, H, W) -> colours and matte (B, 4, S, S) in [0, 1].

    The paper's has three outputs, and a network of others cuts the person out of them; the fourth
    learns the same matte.
    """

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        widths, groups = config.decoder, config.groups
        # P: depths beside each other, then mixed: orthographic.
        self.projection = StandardConv(
            config.channels * config.depth, widths[0], kernel=1, dimensions=2
        )
        self.blocks = nn.Sequential(
            *(
                Residual(widths[0], widths[0], groups=groups, dimensions=2)
                for _ in range(config.blocks_2d)
            )
        )
        self.up = nn.ModuleList(
            Residual(before, after, groups=groups, dimensions=2)
            for before, after in pairwise(widths)
        )
        self.norm = nn.GroupNorm(min(groups, widths[-1]), widths[-1])
        self.last = SpectralConv2d(widths[-1], 4, kernel=3)

    def forward(self, volume: Tensor) -> Tensor:
        x = self.blocks(self.projection(volume.flatten(1, 2)))  # (B, 512, 64, 64)
        for block in self.up:
            x = block(upsampled(x))
        return torch.sigmoid(self.last(F.relu(self.norm(x))))
