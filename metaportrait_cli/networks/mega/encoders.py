"""E_app and E_mtn: what a source looks like, and the expression of a face (section 3.1)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import SpectralConv2d
from metaportrait_cli.networks.mega.blocks import Residual, StandardConv
from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.networks.mega.resnet import ResNet

CODE_SIDE = 4
"""e_s and the map of z are 4 × 4: warping generators start from there"""
FACE_CENTRE = (0.0, 0.08, -0.45)
FACE_HALF = 0.58
"""The part of canonical space that expressions are read from: a face from brows to chin with an
open mouth, in the units of `render.mega.pose`"""
WINDOW, WINDOW_EDGE = (1.0, 1.1), 0.15
"""Half axes of the ellipse around an aligned face, and how softly it ends"""


class VolumeEncoder(nn.Module):
    """E_app, first part: x_s (B, 3, S, S) -> v_s (B, C, D, H, W) (figure 9 a)."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        widths, groups = config.encoder, config.groups
        self.first = SpectralConv2d(3, widths[0], kernel=7)
        self.down = nn.ModuleList(
            Residual(before, after, groups=groups, dimensions=2)
            for before, after in pairwise(widths)
        )
        self.norm = nn.GroupNorm(groups, widths[-1])
        self.unfold = StandardConv(
            widths[-1], config.channels * config.depth, kernel=1, dimensions=2
        )
        self.blocks = nn.Sequential(
            *(
                Residual(config.channels, config.channels, groups=groups, dimensions=3)
                for _ in range(config.blocks_3d)
            )
        )
        self._shape = (config.channels, *config.places)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.first(picture)
        for block in self.down:
            x = F.avg_pool2d(block(x), 2)
        x = self.unfold(F.relu(self.norm(x)))  # (B, C D, H, W): planes of depth, side by side
        return self.blocks(x.view(len(x), *self._shape))


class GlobalEncoder(nn.Module):
    """E_app, second part: x_s -> e_s (B, K, 4, 4), what warps can't bring: ResNet-50."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.trunk = ResNet(
            config.global_layers, width=config.global_width, bottlenecks=True, groups=config.groups
        )
        self.last = StandardConv(self.trunk.width, config.code, kernel=1, dimensions=2)
        self._size = config.global_size

    def forward(self, picture: Tensor) -> Tensor:
        if picture.shape[-1] > self._size:
            picture = F.interpolate(picture, size=(self._size,) * 2, mode="area")
        return F.adaptive_avg_pool2d(self.last(self.trunk(picture)), CODE_SIDE)


class ExpressionEncoder(nn.Module):
    """E_mtn for z: an aligned face (B, 3, L, L) -> z (B, N), a vector without a bias: ResNet-18."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.trunk = ResNet(
            config.motion_layers, width=config.motion_width, bottlenecks=False, groups=config.groups
        )
        self.last = StandardConv(self.trunk.width, config.code, kernel=1, dimensions=2)
        self.vector = nn.Linear(config.code * CODE_SIDE**2, config.expression, bias=False)

    def forward(self, look: Tensor) -> Tensor:
        look = look * face_window(look.shape[-1], like=look)
        features = F.adaptive_avg_pool2d(self.last(self.trunk(look)), CODE_SIDE)
        return self.vector(features.flatten(1))


class MotionCode(nn.Module):
    """u, which warping generators are moved by: (z as a map + e_s) / 2, mixed; (B, K, 4, 4)."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.unfold = nn.Linear(config.expression, config.code * CODE_SIDE**2, bias=False)
        self.mix = StandardConv(config.code, config.code, kernel=1, dimensions=2)

    def forward(self, z: Tensor, e: Tensor) -> Tensor:
        return self.mix((self.unfold(z).view_as(e) + e) * 0.5)


def aligned(picture: Tensor, head: Tensor, *, size: int) -> Tensor:
    """The face of a picture (B, 3, S, S), upright and near: (B, 3, size, size).

    `head` (B, 4, 4) as of `warping.turned`. What is shown is the canonical plane that the face
    lies in, as the head's turn makes it look; differentiable in the picture.
    """
    x = (2 * torch.arange(size, device=head.device) + 1) / size - 1
    plane = face_plane(head.float())[:, None, None]  # (B, 1, 1, 2, 3)
    grid = plane[..., 0] * x[:, None] + plane[..., 1] * x[:, None, None] + plane[..., 2]
    return F.grid_sample(picture.float(), grid, align_corners=False).to(picture.dtype)


def face_window(size: int, *, like: Tensor) -> Tensor:
    """(size, size): 1 over an aligned face, 0 in the corners, where a background would show."""
    centres = (2 * torch.arange(size, device=like.device) + 1) / size - 1
    radius = torch.hypot(centres / WINDOW[0], centres[:, None] / WINDOW[1])
    return ((1 - radius) / WINDOW_EDGE).clamp(0, 1).to(like.dtype)


def face_plane(head: Tensor) -> Tensor:
    """Where places (x, y, 1) of an aligned face are in the picture: (B, 2, 3)."""
    # Not as a matrix product: mixed precision would round places to eight bits.
    centre = (head[:, :2, :3] * head.new_tensor(FACE_CENTRE)).sum(dim=2) + head[:, :2, 3]  # (B, 2)
    return torch.cat([head[:, :2, :2] * FACE_HALF, centre[..., None]], dim=2)


def as_codes(u: Tensor) -> Tensor:
    """(B, K, 4, 4) as the matrices (B, K, 16) that adaptive norms multiply."""
    return torch.flatten(u, 2)
