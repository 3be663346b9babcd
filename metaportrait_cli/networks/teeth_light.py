"""The network that lights drawn teeth; see `networks/teeth.py`.

Shapes: B mouths, C channels, P the side of a patch.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import ConvBlock, enlarge, shrink, zeroed
from metaportrait_cli.networks.layers import conv2d
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.teeth import (
    BRIGHTEST,
    CHANNELS,
    COARSE,
    DARK,
    DARKEST,
    DARKEST_BACK,
    FIRST,
    GAMMA,
    LIFT,
    LIGHT_CHANNELS,
    OPENING,
    PAINT,
    RAISED_FEATURES,
    SKULL_POINTS,
    UPPER,
    TeethConfig,
    lit,
)


class TeethNetwork(Network):
    """Mean rows of teeth, and the network that lights them."""

    config_type = TeethConfig
    skull: Tensor
    upper: Tensor
    lower: Tensor
    raised: Tensor

    def __init__(self, config: TeethConfig) -> None:
        super().__init__(config)
        self.register_buffer("skull", torch.zeros(SKULL_POINTS, 3))
        self.register_buffer("upper", torch.zeros(config.texture))
        self.register_buffer("lower", torch.zeros(config.texture))
        self.register_buffer("raised", torch.zeros(RAISED_FEATURES + 1))
        widths = config.widths
        self.enter = ConvBlock(in_width=CHANNELS, out_width=widths[0], stride=2)
        self.down = nn.ModuleList(
            ConvBlock(in_width=a, out_width=b, stride=2) for a, b in pairwise(widths)
        )
        self.middle = ConvBlock(in_width=widths[-1], out_width=widths[-1])
        self.up = nn.ModuleList(
            ConvBlock(in_width=a + b, out_width=a) for a, b in reversed(list(pairwise(widths)))
        )
        self.head = zeroed(conv2d(widths[0], LIGHT_CHANNELS, kernel=3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Light (B, 8, P / 2, P / 2) from inputs (B, 27, P, P)."""
        x = self.enter(inputs.to(self.head.weight.dtype))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([enlarge(x, skip.shape[-1]), skip], dim=1))
        light = self.head(x).float()
        light = light + light.new_tensor(FIRST)[:, None, None]
        upper, seen, back = light[:, :4], light[:, 4:5], light[:, 5:]
        return torch.cat(
            [
                upper.clamp(DARKEST, BRIGHTEST),
                torch.sigmoid(seen),
                back.clamp(DARKEST_BACK, BRIGHTEST),
            ],
            dim=1,
        )


def brightened(inputs: Tensor, light: Tensor) -> Tensor:
    """The light (B, 8, h, w) with upper teeth brought nearer to what was painted in their place.

    Where that is brighter, it knows better: the network's means of light and shade are dull.
    `inputs` are its (B, 27, P, P).
    """
    size = inputs.shape[-1]
    drawn = lit(inputs, enlarge(light, size), exp=torch.exp).mean(dim=1, keepdim=True)
    opening = inputs[:, OPENING]
    painted = (inputs[:, PAINT] / opening.clamp(min=0.2)).clamp(0, 1) ** GAMMA
    painted = painted.mean(dim=1, keepdim=True)
    lift = painted.clamp(min=DARK).log() - drawn.clamp(min=DARK).log()
    weight = opening * inputs[:, UPPER.stop - 1 : UPPER.stop]

    def coarse(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, COARSE, stride=1, padding=COARSE // 2)

    lift = coarse(lift * weight) / (coarse(weight) + 1e-3)
    lift = shrink(LIFT * lift.clamp(0, 1.2), light.shape[-1])
    upper = (light[:, :3] + lift).clamp(max=BRIGHTEST)
    return torch.cat([upper, light[:, 3:]], dim=1)
