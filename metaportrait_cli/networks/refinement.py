"""ID-preserving refinement network (paper, Section 3.1): the warped source becomes a picture.

Features of the source are warped, not its pixels. They steer a decoder that starts from the
identity vector; in each layer a motion-aware and an identity-aware version of the features are
blended by a learnt mask (Equations 1 and 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import (
    LEAKY_SLOPE,
    EqualisedLinear,
    NearestUpConv2d,
    SpectralConvTranspose2d,
    conv2d,
    fold_for_inference,
    instance_norm,
    resize,
    upsample_twice,
)
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.warping import WarpingOutput, sampled_at

GAZE_POINTS = 8  # four on each iris
GAZE_VARIANCE = 0.005  # in squared [-1, 1] units
# Besides warped features: occlusion 1, gaze maps 8, source and driving lines 6, mouth line 3.
CONDITION_WIDTH = 1 + GAZE_POINTS + 6 + 3


@dataclass(frozen=True)
class RefinementConfig:
    image_size: int = 256
    identity_dim: int = 256
    encoder_widths: tuple[int, ...] = (128, 256, 512)
    """Of the source encoder; each block halves the size."""
    decoder_widths: tuple[int, ...] = (256, 128, 64)
    """Of the source encoder's way back up; each block doubles the size."""
    seed_size: int = 4
    """Side of the feature map that the decoder makes from the identity vector."""
    block_widths: tuple[int, ...] = (512, 512, 512, 256, 128, 64, 32)
    """Of the decoder's blocks; all but the first double the size."""
    condition_hidden: int = 128
    spectral_norm: bool = True
    """Whether the weights are stored raw with their power-iteration vectors."""

    def __post_init__(self) -> None:
        if len(self.decoder_widths) != len(self.encoder_widths):
            raise ValueError("the source encoder must come back to full size")
        if self.seed_size * 2 ** (len(self.block_widths) - 1) != self.image_size:
            raise ValueError("the decoder's blocks do not end at the image size")
        if len(self.block_widths) <= len(self.encoder_widths):
            raise ValueError("each level of the source pyramid needs a block of the decoder")

    @classmethod
    def released(cls) -> Self:
        return cls()

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Of the source pyramid, coarse to fine."""
        return (self.encoder_widths[-1], *self.decoder_widths)

    @property
    def block_levels(self) -> tuple[int, ...]:
        """Pyramid level that conditions each block: blocks too small for one share level 0."""
        shared = len(self.block_widths) - len(self.level_widths)
        return (0,) * shared + tuple(range(len(self.level_widths)))


class Style(NamedTuple):
    """Identity AdaIN of one normalisation: scale (not 1 + scale) and shift, (B, C, 1, 1) each."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class SourceState:
    """All that depends on the source alone; made once, used for every driving frame."""

    pyramid: tuple[Tensor, ...]
    """Features before warping, coarse to fine"""
    seed: Tensor
    """Start of the decoder, (B, C, 4, 4)"""
    styles: tuple[tuple[Style, ...], ...]
    """Per block, per normalisation"""
    line: Tensor
    """Landmark image of the source, (B, 3, H, W)"""


class SourceEncoder(nn.Module):
    """(B, 3, H, W) -> features at H/8, H/4, H/2 and H, coarse to fine."""

    def __init__(self, config: RefinementConfig) -> None:
        super().__init__()
        widths = (3, *config.encoder_widths)
        self.down = nn.ModuleList(
            NormConv(in_width=before, out_width=after) for before, after in pairwise(widths)
        )
        self.up = nn.ModuleList()
        width = widths[-1]
        for out_width, skip in zip(config.decoder_widths, widths[-2::-1], strict=True):
            self.up.append(NormConv(in_width=width, out_width=out_width, upsample=True))
            width = out_width + skip
        self.fuse = conv2d(width, config.decoder_widths[-1], kernel=3)

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        skips = [source]
        for block in self.down:
            skips.append(F.avg_pool2d(block(skips[-1]), 2))
        x = skips.pop()
        pyramid = [x]
        for block in self.up:
            up = block(x)
            pyramid.append(up)  # before the skip joins
            x = torch.cat([up, skips.pop()], dim=1)
        return (*pyramid[:-1], self.fuse(x))


class NormConv(nn.Module):
    """Convolution 3x3 -> InstanceNorm with scale and shift -> ReLU, optionally after nearest x2."""

    def __init__(self, *, in_width: int, out_width: int, upsample: bool = False) -> None:
        super().__init__()
        self.conv = (
            NearestUpConv2d(in_width, out_width)
            if upsample
            else conv2d(in_width, out_width, kernel=3)
        )
        self.norm = nn.InstanceNorm2d(out_width, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class FusionNorm(nn.Module):
    """Attentive fusion of motion and identity (Equations 1 and 2)."""

    def __init__(self, *, width: int, config: RefinementConfig) -> None:
        super().__init__()
        self.modulation = conv2d(config.condition_hidden, 2 * width, kernel=3)  # gamma | beta
        self.attention = conv2d(width, 1, kernel=3)
        self.identity = EqualisedLinear(config.identity_dim, 2 * width)  # scale | shift

    def style(self, identity: Tensor) -> Style:
        scale, shift = self.identity(identity)[:, :, None, None].chunk(2, dim=1)
        return Style(scale, shift)

    def forward(self, x: Tensor, normalised: Tensor, hidden: Tensor, style: Style) -> Tensor:
        """x and its instance norm (B, C, H, W); hidden condition (B, 128, H, W)."""
        gamma, beta = self.modulation(hidden).chunk(2, dim=1)
        motion = torch.addcmul(beta + normalised, normalised, gamma)  # h_motion: FiLM, 1 + gamma
        identity = torch.addcmul(style.shift, normalised, style.scale)  # h_id: AdaIN
        mask = torch.sigmoid(self.attention(x))  # (1) M = sigma(Conv(h_in)), one channel
        return torch.lerp(identity, motion, mask)  # (2) M * h_motion + (1 - M) * h_id


class FusionBlock(nn.Module):
    """Residual block whose normalisations fuse motion and identity."""

    def __init__(
        self, *, in_width: int, out_width: int, feature_width: int, config: RefinementConfig
    ) -> None:
        super().__init__()
        middle = min(in_width, out_width)
        spectral = config.spectral_norm
        self.norms = nn.ModuleList(
            [FusionNorm(width=in_width, config=config), FusionNorm(width=middle, config=config)]
        )
        self.convs = nn.ModuleList(
            [
                conv2d(in_width, middle, kernel=3, spectral=spectral),
                conv2d(middle, out_width, kernel=3, spectral=spectral),
            ]
        )
        self.shortcut = None
        if in_width != out_width:
            self.norms.append(FusionNorm(width=in_width, config=config))
            self.shortcut = conv2d(in_width, out_width, kernel=1, bias=False, spectral=spectral)
        # The normalisations' first convolutions share their input, hence their parameters are one.
        self.condition = conv2d(
            feature_width + CONDITION_WIDTH, config.condition_hidden * len(self.norms), kernel=3
        )

    def styles(self, identity: Tensor) -> tuple[Style, ...]:
        return tuple(norm.style(identity) for norm in cast("list[FusionNorm]", self.norms))

    def forward(self, x: Tensor, condition: Tensor, styles: tuple[Style, ...]) -> Tensor:
        # Slices of a channels-last result would have to be copied, so it is made slice by slice.
        kernels = self.condition.weight.chunk(len(self.norms))
        biases = cast("Tensor", self.condition.bias).chunk(len(self.norms))
        hidden = [
            F.relu_(F.conv2d(condition, kernel, bias, padding="same"))
            for kernel, bias in zip(kernels, biases, strict=True)
        ]
        normalised = instance_norm(x)
        y = self.convs[0](_activated(self.norms[0](x, normalised, hidden[0], styles[0])))
        y = self.convs[1](_activated(self.norms[1](y, instance_norm(y), hidden[1], styles[1])))
        if self.shortcut is not None:
            x = self.shortcut(self.norms[2](x, normalised, hidden[2], styles[2]))
        return x + y


class RefinementNetwork(Network):
    config_type = RefinementConfig

    def __init__(self, config: RefinementConfig) -> None:
        super().__init__(config)
        self.source_encoder = SourceEncoder(config)
        widths = (config.block_widths[0], *config.block_widths)
        self.seed = (
            SpectralConvTranspose2d(config.identity_dim, widths[0], kernel=config.seed_size)
            if config.spectral_norm
            else nn.ConvTranspose2d(config.identity_dim, widths[0], config.seed_size)
        )
        self.blocks = nn.ModuleList(
            FusionBlock(
                in_width=before,
                out_width=after,
                feature_width=config.level_widths[level],
                config=config,
            )
            for before, after, level in zip(widths, widths[1:], config.block_levels, strict=False)
        )
        self.to_rgb = conv2d(widths[-1], 3, kernel=3)

    def encode(self, *, source: Tensor, source_line: Tensor, identity: Tensor) -> SourceState:
        """source and its landmark image (B, 3, H, W) in [0, 1]; identity (B, identity_dim)."""
        dtype = self.to_rgb.weight.dtype
        pyramid, (seed, styles) = self.source_encoder(source.to(dtype)), self.identify(identity)
        # Warping happens in float32, so that is how the features are kept.
        return SourceState(
            pyramid=tuple(level.float() for level in pyramid),
            seed=seed,
            styles=styles,
            line=source_line,
        )

    def identify(self, identity: Tensor) -> tuple[Tensor, tuple[tuple[Style, ...], ...]]:
        """Seed and styles of an identity vector, (B, identity_dim)."""
        identity = identity.to(self.to_rgb.weight.dtype)
        styles = tuple(block.styles(identity) for block in cast("list[FusionBlock]", self.blocks))
        return self.seed(identity[:, :, None, None]), styles

    def forward(
        self,
        state: SourceState,
        motion: WarpingOutput,
        *,
        driving_line: Tensor,
        mouth_mask: Tensor,
        gaze: Tensor,
    ) -> Tensor:
        """Paint the driving view.

        driving_line (B, 3, H, W) and mouth_mask (B, 1, H, W) in [0, 1]; gaze (B, 8, 2), the iris
        points (x, y) in [-1, 1]. Returns (B, 3, H, W) in (-1, 1): the released network ends in
        tanh although it was trained on pictures in [0, 1], so negative values are black.
        """
        conditions = self.conditions(
            state, motion, driving_line=driving_line, mouth_mask=mouth_mask, gaze=gaze
        )
        return self.paint(state.seed, state.styles, conditions)

    def paint(
        self, seed: Tensor, styles: tuple[tuple[Style, ...], ...], conditions: list[Tensor]
    ) -> Tensor:
        """The decoder: identity (see :meth:`identify`) and conditions -> (B, 3, H, W)."""
        x = seed
        levels = self.config.block_levels
        for index, (block, level) in enumerate(zip(self.blocks, levels, strict=True)):
            if index:
                x = upsample_twice(x)
            x = block(x, resize(conditions[level], x.shape[-2:]), styles[index])
        return torch.tanh(self.to_rgb(_activated(x)).float())

    def conditions(
        self,
        state: SourceState,
        motion: WarpingOutput,
        *,
        driving_line: Tensor,
        mouth_mask: Tensor,
        gaze: Tensor,
    ) -> list[Tensor]:
        """What steers the decoder at each pyramid level, coarse to fine: (B, C + 18, h, w).

        Inputs as of :meth:`forward`."""
        lines = torch.cat([state.line, driving_line, driving_line * mouth_mask], dim=1)
        sizes = [features.shape[-2:] for features in state.pyramid]
        conditions = []
        for features, size, level_lines in zip(
            state.pyramid, sizes, line_cascade(lines, sizes), strict=True
        ):
            condition = torch.cat(
                [
                    sampled_at(features, motion.grid),
                    resize(motion.occlusion, size),
                    gaze_maps(gaze, size),
                    level_lines,
                ],
                dim=1,
            )
            dtype = self.to_rgb.weight.dtype
            conditions.append(condition.to(dtype, memory_format=torch.channels_last))
        return conditions

    def fold(self, dtype: torch.dtype = torch.float32) -> Self:
        """Make it fast, in place and for good; ``dtype`` is that of the whole network."""
        fold_for_inference(self)
        self.to(dtype)
        # A quarter less time for the convolutions at 256², most of the network's work.
        for module in (*self.blocks.modules(), self.to_rgb):
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
        self.config = replace(self.config, spectral_norm=False)
        return self


def _activated(x: Tensor) -> Tensor:
    """LeakyReLU in place: x is always fresh, and these layers wait for memory."""
    return F.leaky_relu_(x, LEAKY_SLOPE)


def line_cascade(lines: Tensor, sizes: list[torch.Size]) -> list[Tensor]:
    """The line images at each size, coarse to fine.

    Quirk of the released weights: each level resizes the *previous level's* images, so all the
    finer levels see a blown-up copy of the coarsest, and were trained to.
    """
    levels = []
    for size in sizes:
        lines = resize(lines, size)
        levels.append(lines)
    return levels


def gaze_maps(points: Tensor, size: tuple[int, ...]) -> Tensor:
    """A Gaussian blob per point: points (B, 8, 2), (x, y) in [-1, 1] -> (B, 8, rows, columns)."""
    x = torch.linspace(-1, 1, size[1], dtype=points.dtype, device=points.device)
    y = torch.linspace(-1, 1, size[0], dtype=points.dtype, device=points.device)
    # The blob is a product of one in x and one in y.
    along_x = torch.exp(-0.5 / GAZE_VARIANCE * (x - points[:, :, :1]).square())  # (B, 8, columns)
    along_y = torch.exp(-0.5 / GAZE_VARIANCE * (y - points[:, :, 1:]).square())  # (B, 8, rows)
    return along_y[:, :, :, None] * along_x[:, :, None, :]
