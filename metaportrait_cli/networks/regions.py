"""Mouth and eyes refined in aligned patches (paper, Section 3.2, where it matters most).

What a warp can't do to a face is mostly in three places: teeth and tongue that the source doesn't
show, lids that open or close. A small network repaints aligned patches of them, so that all of
its work goes there. As in the refinement network, identity modulates it and a learnt mask says
where it paints over the warped source; the output layer starts at zero.

Shapes: B patches, C channels, P the patch's side. Pictures are RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import ConvBlock, ModulatedConvBlock, enlarge, zeroed
from metaportrait_cli.networks.layers import conv2d, leaky_relu
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.swift.repainted import (
    BORDER_SHARE,
    COARSE,
    COLOURFUL,
    EDGE,
    FADE,
    MASK_BIAS,
    OPENING,
    OUTLINE,
    OWN,
    OWN_OPENING,
    REACH,
    SLIT,
    STAYING,
    UNKNOWN,
)

# Warped and own picture; driven maps with what the source doesn't show; own maps.
PATCH_CHANNELS = 3 + 3 + 3 + 2


@dataclass(frozen=True)
class RegionConfig:
    keep_shown: bool = False
    """Leave the part of the opening alone that the source shows, but for its edges, which may get
    darker: its own teeth are better. Then the opening counts as the inside, else lids or lips as
    a whole."""
    patch: int = 64
    """P, that it was trained for"""
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
    channels = PATCH_CHANNELS
    """C, of its inputs"""

    def __init__(self, config: RegionConfig) -> None:
        super().__init__(config)
        widths = config.widths
        # Two by two pixels side by side: all convolutions work at half the size.
        self.enter = ConvBlock(in_width=4 * self.channels, out_width=widths[0])
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
        """`patches` (B, C, P, P) in [0, 1], see `PATCH_CHANNELS`; `identity` (B, 128)."""
        (head,) = self.found(patches, identity)
        change, mask = self.painted(head, patches)
        return Repainted(image=patches[:, :3].float() + change, mask=mask)

    def found(self, patches: Tensor, identity: Tensor) -> list[Tensor]:
        """What convolutions find, first the head (B, 16, P / 2, P / 2): its RGB change and mask."""
        patches = patches.to(self.look.weight.dtype)
        return self.found_of(self.enter.conv(F.pixel_unshuffle(patches, 2)), identity)

    def found_of(self, entered: Tensor, identity: Tensor) -> list[Tensor]:
        """`found`, of what the first convolution gives: the sum of what all channels `entered`."""
        return [self.head(self.features(entered, identity)[-1])]

    def entered(self, planes: Tensor, channels: Sequence[int]) -> Tensor:
        """What some channels of patches, these planes (B, N, H, W), add to the first convolution:
        (B, W, H / 2, W / 2). Its bias comes with the first channel."""
        conv = self.enter.conv
        weight = conv.weight.unflatten(1, (self.channels, 4))[:, list(channels)].flatten(1, 2)
        bias = conv.bias if 0 in channels else None
        planes = F.pixel_unshuffle(planes.to(weight.dtype), 2)
        return F.conv2d(planes, weight, bias, padding=conv.padding)

    def features(self, entered: Tensor, identity: Tensor) -> list[Tensor]:
        """What it makes of the first convolution's sum (B, W, P / 2, P / 2), coarse to fine; the
        last two are at P / 4 and P / 2."""
        dtype = self.look.weight.dtype
        x = leaky_relu(self.enter.norm(entered))
        skips = []
        for number, same in enumerate(self.same):
            x = x + same(x)
            if number < len(self.down):
                skips.append(x)
                x = self.down[number](x)
        code = self.look(x.mean(dim=(2, 3))) + self.identity(identity.to(dtype))
        found = [x]
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([enlarge(x, skip.shape[-1]), skip], dim=1), code)
            found.append(x)
        return found

    def painted(self, head: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The change (B, 3, P, P) and its mask (B, 1, P, P), from what the head gives."""
        change, mask = F.pixel_shuffle(head, 2).float().split([3, 1], dim=1)
        patches = patches.float()
        mask = torch.sigmoid(mask + MASK_BIAS) * _window(patches.shape[-1], patches.device)
        inside = patches[:, OUTLINE : OUTLINE + 1]
        if self.config.keep_shown:
            inside = patches[:, OPENING : OPENING + 1]
            mask = mask * (1 - _shown(inside, patches[:, UNKNOWN : UNKNOWN + 1]))
        change = _in_share(change, colourful(patches))
        painted = mask * change
        if self.config.keep_shown:
            # Lightened, teeth that the source shows would be a white band.
            shown = inside * (1 - patches[:, UNKNOWN : UNKNOWN + 1])
            painted = painted - teeth_stay(patches) * shown * painted.clamp(min=0)
        # Skin keeps its grain, which lies a pixel beside its place: left to itself, the network
        # would blur it.
        coarse = _coarse(painted)
        return coarse + _beyond(inside) * (painted - coarse), mask


def colourful(patches: Tensor) -> Tensor:
    """Of patches (B, C, P, P), (B, 1, 1, 1): 0 where the source's own one is grey, 1 mostly."""
    own = patches[:, OWN]
    chroma = (own.amax(dim=1) - own.amin(dim=1)).mean(dim=(1, 2))  # (B,)
    return (chroma / COLOURFUL).clamp(max=1)[:, None, None, None]


def teeth_stay(patches: Tensor) -> Tensor:
    """Of mouths' patches (B, C, P, P), how far teeth that their sources show are still seen, in
    [0, 1], (B, 1, 1, 1)."""
    driven, own = (
        patches[:, part].sum(dim=1).amax(dim=1)[:, None, None, None]
        for part in (OPENING, OWN_OPENING)
    )
    return _ramp(own / patches.shape[-1], SLIT) * _ramp(driven / own.clamp(min=1 / 255), STAYING)


def _ramp(value: Tensor, ends: tuple[float, float]) -> Tensor:
    x = ((value - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)
    return x * x * (3 - 2 * x)


def _in_share(change: Tensor, share: Tensor) -> Tensor:
    """A change (B, 3, P, P) with that share (B, 1, 1, 1) of its colour."""
    grey = change.mean(dim=1, keepdim=True)
    return grey + share * (change - grey)


def _shown(opening: Tensor, unknown: Tensor) -> Tensor:
    """Where the source shows the inside of an opening, softly; all (B, 1, P, P) in [0, 1]."""
    # Less by its edge: of lips that are closed, what is left between them is a slit.
    known = 1 - grown(1 - opening, _pixels(opening, EDGE))
    return known * (1 - _beyond(unknown))


def _beyond(mask: Tensor) -> Tensor:
    """A mask (B, 1, P, P) in [0, 1] that reaches farther by `REACH`, then fades out."""
    return softened(grown(mask, _pixels(mask, REACH)), _pixels(mask, FADE))


def _coarse(change: Tensor) -> Tensor:
    """A change (B, 3, P, P) without what is finer than `COARSE`."""
    return enlarge(F.avg_pool2d(change, _pixels(change, COARSE)), change.shape[-1])


def _pixels(patches: Tensor, share: float) -> int:
    return round(share * patches.shape[-1])


# torch's pools are slow with a single channel: they took half of a frame's time. A square's maximum
# or sum is that of its rows' maxima or sums, and those are of shifted pictures.


def grown(mask: Tensor, by: int) -> Tensor:
    """A mask (B, 1, H, W) in [0, 1] that reaches so many pixels farther."""
    for axis in (-1, -2):
        mask = _padded(mask, axis, by)
        width = 1
        while width < 2 * by + 1:
            step = min(width, 2 * by + 1 - width)
            length = mask.shape[axis] - step
            mask = torch.maximum(mask.narrow(axis, 0, length), mask.narrow(axis, step, length))
            width += step
    return mask


def softened(mask: Tensor, by: int) -> Tensor:
    """A mask (B, 1, H, W), each pixel the mean of those within so many around it."""
    for axis in (-1, -2):
        size = mask.shape[axis]
        padded = _padded(mask, axis, by)
        total = padded.narrow(axis, 0, size).clone()
        for shift in range(1, 2 * by + 1):
            total += padded.narrow(axis, shift, size)
        places = torch.arange(size, device=mask.device)
        count = (places + by).clamp(max=size - 1) - (places - by).clamp(min=0) + 1
        mask = total / (count if axis == -1 else count[:, None])
    return mask


def _padded(mask: Tensor, axis: int, by: int) -> Tensor:
    """A mask (B, 1, H, W) with zeros before and after it along an axis, -1 or -2."""
    return F.pad(mask, (by, by) if axis == -1 else (0, 0, by, by))


def _window(size: int, device: torch.device) -> Tensor:
    """(1, 1, size, size): 0 at the border, 1 inside, smooth between."""
    centres = (torch.arange(size, device=device) + 0.5) / size
    ramp = (torch.minimum(centres, 1 - centres) / BORDER_SHARE).clamp(0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return (ramp[:, None] * ramp)[None, None]
