"""Building blocks of the compact model. Shapes: B batch, C channels, H rows, W columns."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import conv2d, leaky_relu

NORM_GROUPS = 8

LayerT = TypeVar("LayerT", nn.Conv2d, nn.Linear)
NetworkT = TypeVar("NetworkT", bound=nn.Module)


class ConvBlock(nn.Module):
    """Convolution 3x3 -> GroupNorm -> LeakyReLU; `stride` 2 halves the size.

    Groups rather than single channels: a channel's mean says how large the motion is, which
    InstanceNorm would take away.
    """

    def __init__(self, *, in_width: int, out_width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = conv2d(in_width, out_width, kernel=3, stride=stride)
        self.norm = nn.GroupNorm(NORM_GROUPS, out_width)

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(self.norm(self.conv(x)))


class ModulatedConvBlock(nn.Module):
    """`ConvBlock` whose normalised features a code scales and shifts; at first it does nothing."""

    def __init__(self, *, in_width: int, out_width: int, code_dim: int) -> None:
        super().__init__()
        self.conv = conv2d(in_width, out_width, kernel=3)
        self.norm = nn.GroupNorm(NORM_GROUPS, out_width)
        self.style = zeroed(nn.Linear(code_dim, 2 * out_width))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.style(code)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        return leaky_relu(self.norm(self.conv(x)) * (1 + scale) + shift)


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Samples features (B, C, H, W) at each output pixel's place plus flow (B, 2, H', W').

    The flow is (x, y) in half sides of the image, backward; the result is (B, C, H', W'). Pixel i
    of N has its centre at (2 i + 1) / N - 1 (`align_corners=False`), so zero flow is the identity
    at equal sizes. Beyond the border the edge repeats.
    """
    height, width = flow.shape[-2:]
    y = (torch.arange(height, device=flow.device, dtype=torch.float32) * 2 + 1) / height - 1
    x = (torch.arange(width, device=flow.device, dtype=torch.float32) * 2 + 1) / width - 1
    grid = torch.stack(
        [flow[:, 0].float() + x, flow[:, 1].float() + y[:, None]], dim=-1
    )  # (B, H', W', 2); float32, for bf16 has 8 bits: coarser than a pixel
    # The CPU kernel looks up whatever address a NaN turns into.
    grid = torch.nan_to_num(grid)
    # Features keep their own precision where the kernel allows it: positions must not be rounded,
    # values may be.
    return F.grid_sample(
        features.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    ).to(features.dtype)


def channels_last(network: NetworkT) -> NetworkT:
    """The network with its convolutions' weights channels last, as CPUs and tensor cores like."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def shrink(x: Tensor, size: int) -> Tensor:
    """Area average of (B, C, H, W) down to (B, C, size, size)."""
    return x if x.shape[-1] == size else F.adaptive_avg_pool2d(x, size)


def enlarge(x: Tensor, size: int) -> Tensor:
    """Bilinear (B, C, H, W) up to (B, C, size, size); pixel centres keep their places."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def zeroed(layer: LayerT) -> LayerT:
    """The layer with zero weights: its output is zero until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
