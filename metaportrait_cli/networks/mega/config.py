"""What decides the shapes of MegaPortraits (Drobyshev et al., ACM MM 2022): one config for G_base.

Symbols are the paper's: x picture, v volume, e global descriptor, z expression, s source, d driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class MegaConfig:
    """All networks of the base model have the same."""

    size: int = 512
    """Side of the pictures"""
    encoder: tuple[int, ...] = (64, 128, 256, 512)
    """Widths of the first convolution and after each halving, down to the volume's side"""
    channels: int = 96
    """C of the volume (C, D, H, W)"""
    depth: int = 16
    """D"""
    blocks_3d: int = 3
    """Residual blocks on the volume before it is turned"""
    global_layers: tuple[int, ...] = (3, 4, 6, 3)
    """Bottlenecks of the network of e_s: ResNet-50's"""
    global_width: int = 64
    """Of its first convolution"""
    global_size: int = 256
    """Side of the picture it sees"""
    motion_layers: tuple[int, ...] = (2, 2, 2, 2)
    """Blocks of the network of z: ResNet-18's"""
    motion_width: int = 64
    look: int = 128
    """Side of the aligned face that expressions are read from"""
    code: int = 512
    """Width of e_s and of the map that z unfolds to, both 4 × 4"""
    expression: int = 512
    """Length of z; the authors' later work found 128 to be enough, and better"""
    warp: tuple[int, ...] = (512, 256, 128, 64, 32)
    """Widths of warping generators, at 4 × 4 × 4 and after each doubling"""
    volume: tuple[int, ...] = (192, 384, 512)
    """Widths of G_3D, the last being its innermost; the paper draws 196, which 32 groups don't
    divide"""
    decoder: tuple[int, ...] = (512, 256, 128, 64)
    """Widths of G_2D, at the volume's side and after each doubling"""
    blocks_2d: int = 8
    """Residual blocks of G_2D at the volume's side"""
    groups: int = 32
    """Of group norms"""

    def __post_init__(self) -> None:
        """Raises `ValueError` where sizes don't go together."""
        side = self.side
        if side << self.halvings != self.size or side != 4 << (len(self.warp) - 1):
            raise ValueError("encoder, warping generators and size must agree on the volume's side")
        if len(self.decoder) != len(self.encoder) or len(self.volume) != 3:
            raise ValueError("the decoder must double as often as the encoder halves")
        if self.depth % 4 or self.depth > 4 << (len(self.warp) - 1):
            raise ValueError("the depth is no multiple of 4, or more than warps double up to")

    @classmethod
    def paper(cls) -> Self:
        """At 512²: 168.7 million parameters."""
        return cls()

    @classmethod
    def lite(cls) -> Self:
        """At 256², narrow: for one GPU and a few hundred clips."""
        return cls(
            size=256,
            encoder=(32, 64, 128, 256),
            channels=32,
            blocks_3d=2,
            global_layers=(1, 1, 2, 1),
            global_width=32,
            global_size=128,
            motion_width=32,
            look=96,
            code=256,
            expression=128,
            warp=(256, 128, 64, 32),
            volume=(64, 128, 128),
            decoder=(256, 128, 64, 32),
            blocks_2d=4,
            groups=16,
        )

    @property
    def halvings(self) -> int:
        """From the picture to the volume."""
        return len(self.encoder) - 1

    @property
    def side(self) -> int:
        """H = W of the volume."""
        return self.size >> self.halvings

    @property
    def places(self) -> tuple[int, int, int]:
        """(D, H, W) of the volume."""
        return self.depth, self.side, self.side
