"""What is learnt of teeth: how a row of them looks, and the light in which a mouth shows them.

Teeth are drawn, not painted: see `face/dental_arch.py`. The network sees the drawn layers with
lips and skin around them and gives coarse maps of light alone, so it can't blur the gaps between
teeth, nor can it invent them.

Shapes: B mouths, C channels, P the side of a patch. Colours are linear light unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import ConvBlock, enlarge, shrink, zeroed
from metaportrait_cli.networks.layers import conv2d
from metaportrait_cli.networks.network import Network

GAMMA = 2.2
SKULL_POINTS = 30
# Channels of the inputs, in this order.
SEEN, PAINT = slice(0, 3), slice(3, 6)
OPENING = slice(6, 7)
UPPER, LOWER, TONGUE = slice(7, 11), slice(11, 15), slice(15, 17)
RIM, NEAR, GAP = slice(17, 18), slice(18, 20), slice(20, 21)
TOOTH, FLESH = slice(21, 24), slice(24, 27)
CHANNELS = 27
# Of what it gives: logarithms of light on the upper teeth, the lower ones and what is behind, and
# how much of the lower ones is seen. Where it begins, and how far it may go.
LIGHT_CHANNELS = 8
FIRST = (-0.25, -0.25, -0.25, -0.8, 1.0, -2.0, -2.1, -2.1)
DARKEST, BRIGHTEST, DARKEST_BACK = -3.0, 0.8, -5.0
# Lips shade what they touch; of the mouth's inside, the tongue is lighter and the rest darker.
RIM_SHADE, TONGUE_LIGHT, CAVITY_DARK = 0.45, 1.0, 0.7
# How far upper teeth follow paint that is brighter, and over how many pixels of the patch.
LIFT, COARSE, DARK = 0.6, 9, 0.004
# What the height of the lower teeth above the lower lip is told by, see `raised`.
RAISED_FEATURES = 7


@dataclass(frozen=True)
class TeethConfig:
    pixels: int = 6
    """Pixels of a texture to a millimetre"""
    reach: float = 34.0
    """Millimetres that a texture goes along the arch to either side"""
    gum: float = 16.0
    beyond: float = 2.0
    """Millimetres from the edges of the teeth towards the gum, and beyond them"""
    patch: int = 64
    """P"""
    widths: tuple[int, ...] = (32, 48, 64, 64)
    """From half the patch's size down"""

    @property
    def texture(self) -> tuple[int, int, int]:
        """(H, W, 4): the gum is above. Colours are shares of a tooth's, by which coverage, the
        fourth channel, is multiplied already."""
        height = round((self.gum + self.beyond) * self.pixels)
        return height, round(2 * self.reach * self.pixels), 4


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


def lit(inputs: Tensor, light: Tensor) -> Tensor:
    """The inside of mouths (B, 3, H, W) in linear light: the layers among `inputs` (B, 27, H, W),
    far to near, under `light` (B, 8, H, W)."""
    on_upper, on_lower = light[:, :3].exp(), light[:, 3:4].exp()
    seen, behind = light[:, 4:5], light[:, 5:].exp()
    upper, lower = inputs[:, UPPER], inputs[:, LOWER]
    tooth, flesh = inputs[:, TOOTH], inputs[:, FLESH]
    tongue, tongue_there = inputs[:, TONGUE].split(1, dim=1)
    colour = flesh * behind * (1 + TONGUE_LIGHT * tongue - CAVITY_DARK * (1 - tongue_there))
    colour = colour * (1 - lower[:, 3:] * seen) + lower[:, :3] * seen * tooth * on_lower
    colour = colour * (1 - upper[:, 3:]) + upper[:, :3] * tooth * on_upper
    return colour * (1 - RIM_SHADE * inputs[:, RIM])


def brightened(inputs: Tensor, light: Tensor) -> Tensor:
    """The light (B, 8, h, w) with upper teeth brought nearer to what was painted in their place.

    Where that is brighter, it knows better: the network's means of light and shade are dull.
    `inputs` are its (B, 27, P, P).
    """
    size = inputs.shape[-1]
    drawn = lit(inputs, enlarge(light, size)).mean(dim=1, keepdim=True)
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
