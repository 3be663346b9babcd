"""Our warping network: what the analytic warp cannot know, learnt (paper, Section 3.1, in small).

It corrects the prior flow, which carries the face mesh but not hair, neck, ears and shoulders.
What depends on the source alone is in `encode`. The output layer starts at zero: an untrained
network gives the prior, exactly.

Shapes: B batch, C channels, H rows, W columns. Pictures are RGB in [0, 1]; flows are backward,
(x, y), in half sides of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import (
    ConvBlock,
    ModulatedConvBlock,
    enlarge,
    shrink,
    warp,
    zeroed,
)
from metaportrait_cli.networks.layers import conv2d, leaky_relu
from metaportrait_cli.networks.network import Network

# Outputs of the flow head are tenths of half a side: an optimiser's first steps then move pixels,
# not faces.
FLOW_UNIT = 0.1
# Driven landmark image and unknown mouth.
DRIVEN_WIDTH = 4


@dataclass(frozen=True)
class CompactWarpingConfig:
    size: int = 128
    """Side of the pictures that the network sees."""
    widths: tuple[int, ...] = (24, 40, 64, 96)
    """Of the U-Net, from 1/2 of that size down."""
    code_dim: int = 128
    """Of the motion code."""

    def __post_init__(self) -> None:
        if self.size % 32:
            raise ValueError("picture sizes must be multiples of 32")


@dataclass(frozen=True)
class CompactConditions:
    """The driven frames, see `face.conditions`; maps have any size G."""

    flow: Tensor
    """Prior, (B, 2, G, G)"""
    lines: Tensor
    """Landmark image, (B, 3, G, G) in [0, 1]"""
    gap: Tensor
    """Mouth opening that the source doesn't show, (B, 1, G, G) in [0, 1]"""


class CompactWarping(Network):
    """Prior flow → a better one.

    A U-Net on pictures of `size`, whatever the size that is moved: what the prior gets wrong
    (hair, ears, shoulders, a background that stands still) is smooth. A motion code (the paper's
    z_w, from the bottleneck) modulates its decoder, so that the flow is globally coherent.
    """

    config_type = CompactWarpingConfig
    further_planes = 0
    """Of what networks see that are built on this one"""

    def __init__(self, config: CompactWarpingConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.picture = config.size
        self.size = config.size // 2
        self.encoder = nn.Sequential(
            ConvBlock(in_width=3, out_width=widths[0], stride=2),
            ConvBlock(in_width=widths[0], out_width=widths[0]),
        )
        # Source features and picture, where they stand and under the prior; both landmark images,
        # unknown mouth, prior flow.
        in_width = 2 * (widths[0] + 3) + 3 + DRIVEN_WIDTH + 2 + self.further_planes
        self.enter = ConvBlock(in_width=in_width, out_width=widths[0])
        self.down = nn.ModuleList(
            ConvBlock(in_width=before, out_width=after, stride=2)
            for before, after in pairwise(widths)
        )
        self.bottom = ConvBlock(in_width=widths[-1], out_width=widths[-1])
        self.motion_code = nn.Linear(widths[-1], config.code_dim)
        self.up = nn.ModuleList(
            ModulatedConvBlock(in_width=before + after, out_width=before, code_dim=config.code_dim)
            for before, after in reversed(list(pairwise(widths)))
        )
        # Flow x, y; hold. The fourth is for `LayeredWarping`.
        self.head = zeroed(conv2d(widths[0], 4, kernel=3))

    def encode(self, image: Tensor, lines: Tensor) -> Tensor:
        """Source (B, 3, S, S), landmark image (B, 3, G, G) → (B, C + 6, W/2, W/2); W is `size`."""
        dtype = self.motion_code.weight.dtype
        features = self.encoder(shrink(image, self.picture).to(dtype))
        small = [shrink(x, self.size).to(features.dtype) for x in (image, lines)]
        return torch.cat([features, *small], dim=1)

    def forward(self, source: Tensor, driven: CompactConditions) -> Tensor:
        """The corrected flow, (B, 2, G, G) float32; `source` is what `encode` gave."""
        found = enlarge(self.correction(source, driven), driven.flow.shape[-1])
        return corrected(driven.flow.float(), found)

    def correction(self, source: Tensor, driven: CompactConditions) -> Tensor:
        """What to change, (B, 4, W/2, W/2) float32; see `corrected`."""
        return self.through(torch.cat([source, self.moving(source[:, :-3], driven)], dim=1))

    def moving(self, source: Tensor, driven: CompactConditions) -> Tensor:
        """The planes after the source's: itself (B, C + 3, W/2, W/2), without its landmarks, under
        the prior, and the conditions."""
        prior = shrink(driven.flow, self.size)
        conditions = [shrink(x, self.size) for x in (driven.lines, driven.gap)]
        planes = [warp(source, prior), *conditions, prior]
        return torch.cat([x.to(source.dtype) for x in planes], dim=1)

    def through(self, x: Tensor) -> Tensor:
        """All planes that the network sees (B, C, W/2, W/2) → what it says of them."""
        return self.onwards(self.enter.conv(x))

    def entered(self, planes: Tensor, *, first: int = 0) -> Tensor:
        """What some of these planes (B, N, W/2, W/2), from the `first` on, add to the first
        convolution. Its bias comes with that of number 0."""
        conv = self.enter.conv
        weight = conv.weight[:, first : first + planes.shape[1]]
        return F.conv2d(planes, weight, None if first else conv.bias, padding=conv.padding)

    def onwards(self, entered: Tensor) -> Tensor:
        """From the first convolution's sum on."""
        x = leaky_relu(self.enter.norm(entered))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        x = x + self.bottom(x)
        code = self.motion_code(x.mean(dim=(2, 3)))
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([enlarge(x, skip.shape[-1]), skip], dim=1), code)
        return self.head(x).float()


def in_half_sides(correction: Tensor) -> Tensor:
    """A correction (B, 4, H, W), see `corrected`, its flow in the units of flows."""
    return torch.cat([FLOW_UNIT * correction[:, :2], correction[:, 2:]], dim=1)


def corrected(prior: Tensor, correction: Tensor) -> Tensor:
    """The prior flow (B, 2, H, W) with a correction (B, 4, H, W) of that size.

    Its first two channels are added, in units of `FLOW_UNIT`. The third is the share of the prior
    that isn't followed, for what stands still: to undo the prior exactly would be harder to learn.
    """
    flow, hold, _ = correction.split([2, 1, 1], dim=1)
    return prior * (1 - hold) + FLOW_UNIT * flow
