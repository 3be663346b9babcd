"""The compact model: what the analytic warp cannot do, learnt (paper, Section 3.1, in small).

A warping network corrects the prior flow, which carries the face mesh but not hair, neck, ears and
shoulders, and says what the source doesn't show. A refinement network decodes the warped features
of the source, modulated by its identity, and paints over the warped source where a learnt mask
says so. All that depends on the source alone is in `encode`.

Both output layers start at zero: an untrained model gives the analytic warp, exactly.

Shapes: B batch, C channels, H rows, W columns. Pictures are RGB in [0, 1]; flows are backward,
(x, y), in half sides of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import (
    ConvBlock,
    FusionBlock,
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
# At first the mask is nearly closed: what is warped is copied unless there is a reason.
MASK_BIAS = -2.0
OCCLUSION_BIAS = 2.0
# Driven landmark image and unknown mouth.
DRIVEN_WIDTH = 4


@dataclass(frozen=True)
class CompactConfig:
    image_size: int = 256
    identity_dim: int = 128
    code_dim: int = 128
    """Of the modulating code, made from the identity embedding and the source's features."""
    stem_width: int = 16
    """Of the source encoder at full size."""
    encoder_widths: tuple[int, ...] = (32, 64, 128, 160)
    """Of the source encoder at 1/2, 1/4, 1/8 and 1/16 of the size."""
    warp_size: int = 128
    """Of the pictures the warping network sees."""
    warp_widths: tuple[int, ...] = (40, 64, 96, 128)
    """Of the warping network's U-Net, from 1/2 of that size down."""
    decoder_widths: tuple[int, ...] = (128, 80, 40)
    """Of the refinement network at 1/8, 1/4 and 1/2 of the size."""
    condition_hidden: int = 48
    full_width: int = 16
    """Of the refinement network's last stage, at full size."""

    @classmethod
    def small(cls) -> Self:
        """A third of the work, for machines without a GPU."""
        return cls(
            stem_width=12,
            encoder_widths=(24, 48, 80, 112),
            warp_widths=(24, 40, 64, 96),
            decoder_widths=(80, 48, 24),
            condition_hidden=24,
            full_width=8,
        )

    def __post_init__(self) -> None:
        if self.image_size % 32 or self.warp_size % 32:
            raise ValueError("picture sizes must be multiples of 32")
        if len(self.encoder_widths) != 4 or len(self.decoder_widths) != 3:
            raise ValueError("four encoder levels and three decoder levels belong together")


@dataclass(frozen=True)
class SourceFeatures:
    """All that depends on the source alone; made once, used for every driven frame."""

    image: Tensor
    """(B, 3, S, S)"""
    pyramid: tuple[Tensor, ...]
    """Features at 1/2, 1/4 and 1/8 of the size"""
    code: Tensor
    """(B, code_dim)"""
    for_warping: Tensor
    """Features, picture and landmark image, (B, C + 6, W/2, W/2); W is `warp_size`"""

    def repeated(self, count: int) -> SourceFeatures:
        """The one source for `count` frames; no memory is copied."""
        return SourceFeatures(
            image=self.image.expand(count, -1, -1, -1),
            pyramid=tuple(level.expand(count, -1, -1, -1) for level in self.pyramid),
            code=self.code.expand(count, -1),
            for_warping=self.for_warping.expand(count, -1, -1, -1),
        )


@dataclass(frozen=True)
class Driving:
    """The driven frames, see `face.conditions`; G is half the picture's size."""

    flow: Tensor
    """Prior, (B, 2, G, G)"""
    lines: Tensor
    """Landmark image, (B, 3, G, G) in [0, 1]"""
    gap: Tensor
    """Mouth opening that the source doesn't show, (B, 1, G, G) in [0, 1]"""


@dataclass(frozen=True)
class Motion:
    """Where each pixel comes from, and whether it is there."""

    flow: Tensor
    """Prior plus what was learnt, (B, 2, G, G), float32"""
    visible: Tensor
    """(B, 1, G, G) in [0, 1]; 0 where the source doesn't show what is needed"""


@dataclass(frozen=True)
class Picture:
    """`image` is `warped` with `painted` over it, as far as `mask` says. All float32."""

    image: Tensor
    """(B, 3, S, S); values may leave [0, 1] a little"""
    warped: Tensor
    """(B, 3, S, S), the source under the flow"""
    painted: Tensor
    """(B, 3, S, S)"""
    mask: Tensor
    """(B, 1, S, S) in [0, 1]"""


class SourceEncoder(nn.Module):
    """Source and its landmark image -> features at 1/2, 1/4, 1/8 of the size, and a global one."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        widths = (config.stem_width, *config.encoder_widths)
        self.stem = conv2d(3, config.stem_width, kernel=3)
        self.down = nn.ModuleList(
            # The landmark image joins at its own size, 1/2.
            ConvBlock(in_width=before + (3 if i == 1 else 0), out_width=after, stride=2)
            for i, (before, after) in enumerate(pairwise(widths))
        )
        self.same = nn.ModuleList(
            ConvBlock(in_width=width, out_width=width) for width in config.encoder_widths
        )
        # Coarse features reach the finer levels, so that these know what part they show.
        self.top_down = nn.ModuleList(
            conv2d(coarse, fine, kernel=1) for fine, coarse in pairwise(config.encoder_widths)
        )

    def forward(self, image: Tensor, lines: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Returns the pyramid, fine to coarse, and the pooled coarsest features (B, C)."""
        x = leaky_relu(self.stem(image))
        levels = []
        for i, (down, same) in enumerate(zip(self.down, self.same, strict=True)):
            x = torch.cat([x, lines.to(x.dtype)], dim=1) if i == 1 else x
            x = down(x)
            x = x + same(x)
            levels.append(x)
        for i in reversed(range(len(self.top_down))):
            above = self.top_down[i](levels[i + 1])
            levels[i] = levels[i] + F.interpolate(above, scale_factor=2, mode="nearest")
        return tuple(levels[:-1]), levels[-1].mean(dim=(2, 3))


class WarpingNetwork(Network):
    """Corrects the prior flow and finds what the source doesn't show.

    A U-Net on pictures of `warp_size`, whatever the size that is painted: what the prior gets
    wrong (hair, ears, shoulders, a background that stands still) is smooth. A motion code (the
    paper's z_w, from the bottleneck) modulates its decoder, so that the flow is globally coherent.
    """

    config_type = CompactConfig

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        widths = config.warp_widths
        self.picture = config.warp_size
        self.size = config.warp_size // 2
        self.encoder = nn.Sequential(
            ConvBlock(in_width=3, out_width=widths[0], stride=2),
            ConvBlock(in_width=widths[0], out_width=widths[0]),
        )
        # Source features and picture, where they stand and under the prior; both landmark images,
        # unknown mouth, prior flow.
        in_width = 2 * (widths[0] + 3) + 3 + DRIVEN_WIDTH + 2
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
        self.head = zeroed(conv2d(widths[0], 4, kernel=3))  # flow x, y; hold; visible

    def encode(self, image: Tensor, lines: Tensor) -> Tensor:
        """Source (B, 3, S, S), landmark image (B, 3, S/2, S/2) → (B, C + 6, W/2, W/2)."""
        dtype = self.motion_code.weight.dtype
        features = self.encoder(shrink(image, self.picture).to(dtype))
        small = [shrink(x, self.size).to(features.dtype) for x in (image, lines)]
        return torch.cat([features, *small], dim=1)

    def forward(self, source: Tensor, driving: Driving) -> Motion:
        """`source` is what `encode` gave."""
        found = enlarge(self.correction(source, driving), driving.flow.shape[-1])
        flow, hold, visible = found.split([2, 1, 1], dim=1)  # (B, …, G, G)
        return Motion(
            flow=corrected(driving.flow.float(), flow, hold),
            visible=torch.sigmoid(visible + OCCLUSION_BIAS),
        )

    def correction(self, source: Tensor, driving: Driving) -> Tensor:
        """What to change, (B, 4, W/2, W/2) float32: flow (see `corrected`), hold, visible."""
        prior = shrink(driving.flow, self.size)
        conditions = [shrink(x, self.size) for x in (driving.lines, driving.gap)]
        moving = warp(source[:, :-3], prior)
        x = torch.cat([source, moving, *(x.to(source.dtype) for x in (*conditions, prior))], dim=1)
        x = self.enter(x)
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


def corrected(prior: Tensor, flow: Tensor, hold: Tensor) -> Tensor:
    """The prior flow (B, 2, H, W) with the learnt one added, which is in units of `FLOW_UNIT`.

    What stands still is told by `hold` (B, 1, H, W), the share of the prior that isn't followed:
    to undo the prior exactly would be harder to learn.
    """
    return prior * (1 - hold) + FLOW_UNIT * flow


class RefinementNetwork(nn.Module):
    """Decodes warped source features into what is painted over the warped source."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.size = config.image_size
        levels = config.encoder_widths[2::-1]  # of the features at 1/8, 1/4, 1/2
        conditions = [width + 1 + DRIVEN_WIDTH for width in levels]
        widths = (config.decoder_widths[0], *config.decoder_widths)
        self.enter = conv2d(conditions[0], widths[0], kernel=3)
        self.blocks = nn.ModuleList(
            FusionBlock(
                in_width=before,
                out_width=after,
                condition_width=condition,
                hidden=config.condition_hidden,
                code_dim=config.code_dim,
            )
            for (before, after), condition in zip(pairwise(widths), conditions, strict=True)
        )
        # Four phases at 1/2 of the size make one map at full size: a quarter of the memory traffic
        # of convolutions there, which is what a CPU waits for.
        self.to_full = conv2d(widths[-1], 4 * config.full_width, kernel=3)
        self.full = conv2d(config.full_width + 3, config.full_width, kernel=3)
        self.head = zeroed(conv2d(config.full_width, 4, kernel=3))  # RGB change; mask

    def forward(self, source: SourceFeatures, driving: Driving, motion: Motion) -> Picture:
        driven = torch.cat([driving.lines, driving.gap], dim=1)
        x: Tensor | None = None
        for block, features in zip(self.blocks, reversed(source.pyramid), strict=True):
            size, dtype = features.shape[-1], features.dtype
            visible = shrink(motion.visible, size).to(dtype)
            condition = torch.cat(
                [
                    warp(features, shrink(motion.flow, size)) * visible,
                    visible,
                    shrink(driven, size).to(dtype),
                ],
                dim=1,
            )
            x = self.enter(condition) if x is None else enlarge(x, size)
            x = block(x, condition, source.code)
        warped = warp(source.image.float(), enlarge(motion.flow, self.size))
        full = F.pixel_shuffle(leaky_relu(self.to_full(x)), 2)  # (B, C, S, S)
        full = leaky_relu(self.full(torch.cat([full, warped.to(full.dtype)], dim=1)))
        change, mask = self.head(full).float().split([3, 1], dim=1)
        mask = torch.sigmoid(mask + MASK_BIAS)
        return Picture(
            image=warped + mask * change, warped=warped, painted=warped + change, mask=mask
        )


class CompactModel(Network):
    """Source and driven landmarks -> picture. `encode` once, then call for every batch."""

    config_type = CompactConfig

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        self.encoder = SourceEncoder(config)
        self.identity = nn.Linear(config.identity_dim, config.code_dim)
        self.look = nn.Linear(config.encoder_widths[-1], config.code_dim)
        self.warping = WarpingNetwork(config)
        self.refinement = RefinementNetwork(config)

    def encode(self, image: Tensor, lines: Tensor, identity: Tensor) -> SourceFeatures:
        """image (B, 3, S, S) and its landmark image (B, 3, S/2, S/2) in [0, 1]; identity
        (B, identity_dim), zeros where it is not known."""
        dtype = self.identity.weight.dtype
        pyramid, pooled = self.encoder(image.to(dtype), lines)
        code = self.identity(identity.to(dtype)) + self.look(pooled)
        return SourceFeatures(
            image=image,
            pyramid=pyramid,
            code=code,
            for_warping=self.warping.encode(image, lines),
        )

    def forward(self, source: SourceFeatures, driving: Driving) -> tuple[Picture, Motion]:
        """The pictures and how they came about, for as many driven frames as sources."""
        motion = self.warping(source.for_warping, driving)
        return self.refinement(source, driving, motion), motion
