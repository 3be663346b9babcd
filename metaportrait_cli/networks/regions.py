"""Mouth and eyes refined in aligned patches (paper, Section 3.2, where it matters most).

What a warp can't do to a face is mostly in three places: teeth and tongue that the source doesn't
show, lids that open or close. A small network repaints aligned patches of them, so that all of
its work goes there. As in the refinement network, identity modulates it and a learnt mask says
where it paints over the warped source; the output layer starts at zero.

Shapes: B patches, C channels, P the patch's side. Pictures are RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import ConvBlock, ModulatedConvBlock, enlarge, zeroed
from metaportrait_cli.networks.layers import conv2d
from metaportrait_cli.networks.network import Network

# Warped and own picture; driven maps with what the source doesn't show; own maps.
PATCH_CHANNELS = 3 + 3 + 3 + 2
OPENING, UNKNOWN = 7, 8
# Pixels of a patch by which painting may go beyond what is unknown, then fades out.
REACH, FADE = 2, 2
# At first the mask is half open: a closed one would keep the change from being learnt.
MASK_BIAS = 0.0
# A patch changes nothing at its border: share of the side over which it may more and more.
BORDER_SHARE = 0.12


@dataclass(frozen=True)
class RegionConfig:
    keep_shown: bool = False
    """Leave the part of the opening alone that the source shows: its own teeth are better."""
    widths: tuple[int, ...] = (40, 64, 96, 112)
    """From half the patch's size down."""
    code_dim: int = 64
    identity_dim: int = 128


@dataclass(frozen=True)
class Repainted:
    """`image` (B, 3, P, P) is the warped patch with a change where `mask` (B, 1, P, P) says so."""

    image: Tensor
    mask: Tensor


class RegionNetwork(Network):
    """A U-Net from patches to patches; one for the mouth, one for both eyes."""

    config_type = RegionConfig

    def __init__(self, config: RegionConfig) -> None:
        super().__init__(config)
        widths = config.widths
        # Two by two pixels side by side: all convolutions work at half the size.
        self.enter = ConvBlock(in_width=4 * PATCH_CHANNELS, out_width=widths[0])
        self.same = nn.ModuleList(ConvBlock(in_width=w, out_width=w) for w in widths)
        self.down = nn.ModuleList(
            ConvBlock(in_width=before, out_width=after, stride=2)
            for before, after in pairwise(widths)
        )
        self.look = nn.Linear(widths[-1], config.code_dim)
        self.identity = nn.Linear(config.identity_dim, config.code_dim)
        self.up = nn.ModuleList(
            ModulatedConvBlock(in_width=before + after, out_width=before, code_dim=config.code_dim)
            for before, after in reversed(list(pairwise(widths)))
        )
        self.head = zeroed(conv2d(widths[0], 4 * 4, kernel=3))  # RGB change and mask, four phases

    def forward(self, patches: Tensor, identity: Tensor) -> Repainted:
        """`patches` (B, 11, P, P) in [0, 1], see `PATCH_CHANNELS`; `identity` (B, 128)."""
        dtype = self.look.weight.dtype
        x = self.enter(F.pixel_unshuffle(patches.to(dtype), 2))
        skips = []
        for number, same in enumerate(self.same):
            x = x + same(x)
            if number < len(self.down):
                skips.append(x)
                x = self.down[number](x)
        code = self.look(x.mean(dim=(2, 3))) + self.identity(identity.to(dtype))
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([enlarge(x, skip.shape[-1]), skip], dim=1), code)
        change, mask = F.pixel_shuffle(self.head(x), 2).float().split([3, 1], dim=1)
        mask = torch.sigmoid(mask + MASK_BIAS) * _window(patches.shape[-1], patches.device)
        if self.config.keep_shown:
            mask = mask * (1 - _shown(patches.float()))
        return Repainted(image=patches[:, :3].float() + mask * change, mask=mask)


def _shown(patches: Tensor) -> Tensor:
    """Where the source shows the inside of the opening, softly: (B, 1, P, P) in [0, 1]."""
    unknown = patches[:, UNKNOWN : UNKNOWN + 1]
    grown = F.max_pool2d(unknown, 2 * REACH + 1, stride=1, padding=REACH)
    soft = F.avg_pool2d(grown, 2 * FADE + 1, stride=1, padding=FADE, count_include_pad=False)
    return patches[:, OPENING : OPENING + 1] * (1 - soft)


def _window(size: int, device: torch.device) -> Tensor:
    """(1, 1, size, size): 0 at the border, 1 inside, smooth between."""
    centres = (torch.arange(size, device=device) + 0.5) / size
    ramp = (torch.minimum(centres, 1 - centres) / BORDER_SHARE).clamp(0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return (ramp[:, None] * ramp)[None, None]
