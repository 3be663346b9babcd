"""The 3D warps: rotation by geometry, expression by a warping generator, one after the other.

A volume is (B, C, D, H, W), its axes z (away from the camera), y (down), x (right), each from -1
to 1 between the outer faces of the outermost voxels: voxel i of N has its centre at
(2 i + 1) / N - 1 (`align_corners=False`), so that a picture's coordinates are its volume's, and an
unchanged grid changes nothing. A grid (B, D, H, W, 3) holds for each voxel the place (x, y, z) in
the other volume that it reads from; beyond the faces there is nothing, zero.

A head's place `head` (B, 4, 4) takes canonical coordinates (a head that looks into the camera) to
the picture's: the inverse of the paper's theta.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.mega.blocks import (
    AdaptiveResBlock3d,
    StandardConv,
    resized_3d,
)
from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.networks.mega.encoders import CODE_SIDE, as_codes


class WarpingGenerator(nn.Module):
    """W: a code u (B, K, 4, 4) -> w_em (B, D, H, W, 3), at first the identity (figure 9 b)."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        widths = config.warp
        self.first = StandardConv(config.code, widths[0] * CODE_SIDE, kernel=1, dimensions=2)
        self.up = nn.ModuleList(
            AdaptiveResBlock3d(
                before, after, code=config.code, places=CODE_SIDE**2, groups=config.groups
            )
            for before, after in pairwise(widths)
        )
        self.norm = nn.GroupNorm(config.groups, widths[-1])
        self.last = nn.Conv3d(widths[-1], 3, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        self._widest = widths[0]
        self._depth = config.depth

    def forward(self, u: Tensor) -> Tensor:
        codes = as_codes(u)
        x = self.first(u).view(len(u), self._widest, *[CODE_SIDE] * 3)  # (B, C, 4, 4, 4)
        for block in self.up:
            depth, height, width = x.shape[2:]
            x = resized_3d(x, (min(2 * depth, self._depth), 2 * height, 2 * width))
            x = block(x, codes)
        offsets = torch.tanh(self.last(F.relu(self.norm(x))).float())  # (B, 3, D, H, W)
        return identity_grid(offsets.shape[2:], like=offsets) + offsets.permute(0, 2, 3, 4, 1)


def identity_grid(places: tuple[int, ...], *, like: Tensor) -> Tensor:
    """Where each voxel is itself, (D, H, W, 3) of (x, y, z)."""
    z, y, x = (
        (2 * torch.arange(count, device=like.device, dtype=torch.float32) + 1) / count - 1
        for count in places
    )
    return torch.stack([each.expand(*places) for each in (x, y[:, None], z[:, None, None])], dim=-1)


def turned(matrix: Tensor, places: tuple[int, ...]) -> Tensor:
    """w_rt: the identity grid under (B, 4, 4), exactly: (B, D, H, W, 3).

    The head's own matrix reads the canonical volume's contents out of a picture's (w_rt of the
    source); its inverse reads the picture's out of the canonical one (w_rt of the driver).
    """
    grid = identity_grid(places, like=matrix)[..., None, :]  # (D, H, W, 1, 3)
    matrix = matrix.float()[:, None, None, None]  # (B, 1, 1, 1, 4, 4)
    # Not as a matrix product: mixed precision would round places to eight bits.
    return (matrix[..., :3, :3] * grid).sum(dim=-1) + matrix[..., :3, 3]


def sampled(volume: Tensor, grid: Tensor) -> Tensor:
    """The volume (B, C, D, H, W) where the grid says, trilinearly."""
    # The CPU kernel looks up whatever address a NaN turns into. Places stay float32: bf16 has eight
    # bits, coarser than a voxel.
    found = F.grid_sample(
        volume.float(), torch.nan_to_num(grid), mode="bilinear", align_corners=False
    )
    return found.to(volume.dtype)


def to_canonical(volume: Tensor, head: Tensor, w_em: Tensor) -> Tensor:
    """First to the front, then without the expression: w_em(w_rt(v_s)), equation 1, inner half."""
    return sampled(sampled(volume, turned(head, tuple(volume.shape[2:]))), w_em)


def from_canonical(volume: Tensor, head: Tensor, w_em: Tensor) -> Tensor:
    """First the driver's expression, then its pose: w_rt(w_em(v)), equation 1, outer half."""
    back = torch.linalg.inv(head.float())
    return sampled(sampled(volume, w_em), turned(back, tuple(volume.shape[2:])))
