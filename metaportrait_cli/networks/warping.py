"""Warping network (paper, Section 3.1): where each pixel of the driving view lies in the source.

    x_in = concat(I_s, I_s^ldmk, I_d^ldmk)     z_w = E_w(x_in)     w = F_w(x_in, z_w)

The flow is estimated on a quarter-size grid. Coordinates are (x, y) in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import (
    LEAKY_SLOPE,
    NORM_EPS,
    AdaptiveConvBlock,
    conv2d,
    fold_for_inference,
    resize,
)
from metaportrait_cli.networks.network import Network

INPUT_WIDTH = 9  # source image, source landmark image, driving landmark image

# Quirks of the released weights: they were trained with these, and are wrong without.
# The base grid puts -1 and 1 on the centres of the border pixels, as align_corners=True would, but
# sampling takes them as the picture's edges. So zero flow is not the identity: it moves pixels.
SAMPLE_ALIGN_CORNERS = False
HEAD_SLOPE = 0.1  # of the flow and occlusion heads; every other LeakyReLU has 0.2


@dataclass(frozen=True)
class WarpingConfig:
    image_size: int = 256
    motion_widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    """Of the motion encoder; each layer halves the size."""
    motion_dim: int = 512
    """Length of the motion code z_w."""
    encoder_widths: tuple[int, ...] = (128, 256, 512, 1024, 1024)
    """Of the hourglass; each block halves the size."""
    decoder_widths: tuple[int, ...] = (1024, 512, 256)
    """Of the hourglass; each block doubles the size."""
    modulation_hidden: int = 128
    spectral_norm: bool = True
    """Whether the weights are stored raw with their power-iteration vectors."""

    def __post_init__(self) -> None:
        if self.image_size % 2 ** max(len(self.motion_widths), len(self.encoder_widths)):
            raise ValueError(f"an image of {self.image_size} can't be halved that often")
        if len(self.decoder_widths) >= len(self.encoder_widths):
            raise ValueError("the flow grid must be smaller than the image")

    @classmethod
    def released(cls) -> Self:
        return cls()


@dataclass(frozen=True)
class WarpingOutput:
    """What the warping network says about one driving view."""

    motion_code: Tensor
    """z_w, (B, motion_dim), of unit length"""
    flow: Tensor
    """(B, 2, h, w): offset (x, y) in [-1, 1] units of the grid, to be added to the base grid"""
    grid: Tensor
    """(B, h, w, 2): base grid + flow, absolute sampling positions (x, y) in the source"""
    occlusion: Tensor
    """(B, 1, H, W) in (0, 1)"""


class MotionEncoder(nn.Module):
    """E_w: a code of unit length for the whole motion, (B, 9, H, W) -> (B, motion_dim)."""

    def __init__(self, config: WarpingConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        widths = (INPUT_WIDTH, *config.motion_widths)
        self.convs = nn.ModuleList(
            conv2d(before, after, kernel=3, stride=2, bias=False, spectral=config.spectral_norm)
            for before, after in pairwise(widths)
        )
        final_size = config.image_size // 2 ** len(config.motion_widths)
        self.project = nn.Linear(widths[-1] * final_size**2, config.motion_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = resize(x, (self.image_size, self.image_size))
        for conv in self.convs:
            x = F.leaky_relu(F.instance_norm(conv(x), eps=NORM_EPS), LEAKY_SLOPE)
        code = self.project(x.flatten(1))
        return code / (code.norm(dim=1, keepdim=True) + 1e-5)


class DownBlock(nn.Module):
    """Two convolution blocks with 2x2 averaging between them."""

    def __init__(self, *, in_width: int, out_width: int, config: WarpingConfig) -> None:
        super().__init__()
        self.change = _block(in_width, out_width, config)
        self.keep = _block(out_width, out_width, config)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.keep(F.avg_pool2d(self.change(x, code), 2), code)


class UpBlock(nn.Module):
    """Two convolution blocks after nearest x2."""

    def __init__(self, *, in_width: int, out_width: int, config: WarpingConfig) -> None:
        super().__init__()
        self.change = _block(in_width, out_width, config, upsample=True)
        self.keep = _block(out_width, out_width, config)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.keep(self.change(x, code), code)


class Hourglass(nn.Module):
    """F_w without its heads: (B, 9, H, W) -> (B, C, h, w), modulated by the motion code."""

    def __init__(self, config: WarpingConfig) -> None:
        super().__init__()
        widths = (INPUT_WIDTH, *config.encoder_widths)
        self.down = nn.ModuleList(
            DownBlock(in_width=before, out_width=after, config=config)
            for before, after in pairwise(widths)
        )
        self.up = nn.ModuleList()
        width = widths[-1]
        for out_width, skip in zip(config.decoder_widths, widths[-2:0:-1], strict=False):
            self.up.append(UpBlock(in_width=width, out_width=out_width, config=config))
            width = out_width + skip
        self.out_width = width

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x, code)
            skips.append(x)
        skips.pop()  # the smallest is x itself
        for block in self.up:
            x = torch.cat([block(x, code), skips.pop()], dim=1)
        return x


class MapHead(nn.Module):
    """Normalisation over channels and positions together -> LeakyReLU -> convolution 7x7."""

    def __init__(self, *, in_width: int, out_width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(in_width, 1, 1))
        self.shift = nn.Parameter(torch.zeros(in_width, 1, 1))
        self.conv = conv2d(in_width, out_width, kernel=7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x, x.shape[1:], eps=NORM_EPS) * self.scale + self.shift
        return self.conv(F.leaky_relu(x, HEAD_SLOPE))


class WarpingNetwork(Network):
    config_type = WarpingConfig

    def __init__(self, config: WarpingConfig) -> None:
        super().__init__(config)
        self.motion_encoder = MotionEncoder(config)
        self.hourglass = Hourglass(config)
        self.flow_head = MapHead(in_width=self.hourglass.out_width, out_width=2)
        self.occlusion_head = MapHead(in_width=self.hourglass.out_width, out_width=1)

    def forward(
        self, *, source: Tensor, source_line: Tensor, driving_line: Tensor
    ) -> WarpingOutput:
        """All inputs (B, 3, H, W), RGB in [0, 1]; the lines are landmark images."""
        x = torch.cat([source, source_line, driving_line], dim=1).to(self.dtype)
        code = self.motion_encoder(x)  # z_w = E_w(x_in)
        # The heads stay in float32: a grid position needs more digits than bfloat16 has.
        features = self.hourglass(x, code).to(self.flow_head.scale.dtype)
        pixels = self.flow_head(features)  # (B, 2, h, w), pixels of the small grid
        height, width = pixels.shape[-2:]
        flow = 2 * pixels / pixels.new_tensor([width - 1, height - 1]).view(1, 2, 1, 1)
        grid = base_grid(height, width, like=flow) + flow.permute(0, 2, 3, 1)
        occlusion = resize(torch.sigmoid(self.occlusion_head(features)), source.shape[-2:])
        return WarpingOutput(motion_code=code, flow=flow, grid=grid, occlusion=occlusion)

    @property
    def dtype(self) -> torch.dtype:
        return self.motion_encoder.project.weight.dtype

    def fold(self, dtype: torch.dtype = torch.float32) -> Self:
        """Make it fast, in place and for good; ``dtype`` is that of the heavy part."""
        fold_for_inference(self)
        self.motion_encoder.to(dtype)
        self.hourglass.to(dtype)
        self.config = replace(self.config, spectral_norm=False)
        return self


def base_grid(height: int, width: int, *, like: Tensor) -> Tensor:
    """(1, height, width, 2): position (x, y) of each pixel, -1 and 1 on border pixels."""
    x = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device)
    y = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]


def sampled_at(features: Tensor, grid: Tensor) -> Tensor:
    """Sample ``features`` (B, C, H, W) at ``grid`` (B, h, w, 2), resized to H x W first.

    Backward warping; outside the picture it is reflected.
    """
    grid = resize(grid.permute(0, 3, 1, 2), features.shape[-2:]).permute(0, 2, 3, 1)
    return F.grid_sample(
        features,
        grid,
        mode="bilinear",
        padding_mode="reflection",
        align_corners=SAMPLE_ALIGN_CORNERS,
    )


def _block(
    in_width: int, out_width: int, config: WarpingConfig, *, upsample: bool = False
) -> AdaptiveConvBlock:
    return AdaptiveConvBlock(
        in_width=in_width,
        out_width=out_width,
        code_dim=config.motion_dim,
        hidden=config.modulation_hidden,
        upsample=upsample,
    )
