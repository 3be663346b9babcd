"""A student: one person, learnt from another renderer's pictures of them, small enough for a CPU.

MegaPortraits (Drobyshev et al., ACM MM 2022, Section 3.4) paints an avatar out of a constant
identity tensor. Here the identity tensors are of four kinds: a few pictures of the person, which
are moved and mixed rather than painted anew, so that skin and hair stay as sharp as they are; the
background behind; fields of motion, of which a frame's is a sum, as faces are of a morphable model;
and features that move along, from which convolutions tell what is still missing.

    z    = whitened landmarks,  h = MLP(z)                      what the face does
    maps = base + sum_k (A (z, h))_k fields_k                   coarse: flows and masks
    maps, paint = convolutions(features under the maps, h)      fine
    picture = mix(pictures under their flows, background) + paint

There are no norms, so there is nothing to fold. The output layer starts at zero.

Shapes: B batch, P pictures, C channels. Pictures are RGB in [0, 1]; flows are backward, (x, y), in
half sides of the picture (`align_corners=False`). Landmarks are (B, 478, 3) in sides of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import enlarge, shrink, warp, zeroed
from metaportrait_cli.networks.layers import conv2d, leaky_relu
from metaportrait_cli.networks.network import Network

LANDMARKS = 478
FINE, PAINTED = 2, 4
"""Sides of the fine maps and of the paint, in sides of the coarse ones"""
FLOW_UNIT = 0.05
"""Of stored flows, in half sides: an optimiser's steps then move pixels, not faces"""
SETTLED = 0.05
"""Share of fields and amounts, as stored, that acts: they are computed before any training, and
steps that are right for convolutions would shake them"""


@dataclass(frozen=True)
class StudentConfig:
    size: int = 512
    """Side of the pictures"""
    coarse: int = 64
    """Side of the coarse maps and of the features"""
    pictures: int = 2
    """Of the person; the last one shows what is hidden while the mouth is closed and eyes open"""
    terms: int = 32
    """Length of z; what is beyond is mostly noise, and a stranger's"""
    code: int = 192
    """Length of h"""
    fields: int = 80
    """How many fields of motion there are"""
    features: int = 16
    width: int = 40
    """Of the convolutions on the coarse maps' grid"""
    fine_width: int = 24

    def __post_init__(self) -> None:
        """Raises `ValueError` where sizes don't go together."""
        if self.size % (PAINTED * self.coarse):
            raise ValueError(f"the size must be a multiple of {PAINTED * self.coarse}")
        if self.pictures < 1:
            raise ValueError("there must be a picture of the person")

    @property
    def maps(self) -> int:
        """Channels: a flow a picture, a logit for each but the first, the background's logit."""
        return 3 * self.pictures


class Student(Network):
    """Landmarks -> pictures of the one person."""

    config_type = StudentConfig

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        c = config
        self.register_buffer("rest", torch.zeros(3 * LANDMARKS))
        self.register_buffer("axes", torch.zeros(3 * LANDMARKS, c.terms))
        # The pictures, the background last; bytes, for that is what files have.
        pictures = torch.zeros(c.pictures + 1, 3, c.size, c.size, dtype=torch.uint8)
        self.register_buffer("pictures", pictures)
        self.mlp = nn.Sequential(
            *(nn.Linear(c.terms, c.code), nn.LeakyReLU(0.2)),
            *(nn.Linear(c.code, c.code), nn.LeakyReLU(0.2)),
        )
        self.base = nn.Parameter(torch.zeros(c.maps, c.coarse, c.coarse))
        self.amounts = nn.Linear(c.terms + c.code, c.fields, bias=False)
        self.fields = nn.Parameter(torch.zeros(c.fields, c.maps * c.coarse**2))
        self.features = nn.Parameter(0.1 * torch.randn(c.features, c.coarse, c.coarse))
        self.enter = StyledConv(c.features + c.maps, c.width, code=c.code)
        self.body = StyledConv(c.width, c.width, code=c.code)
        self.up = StyledConv(c.width, c.fine_width * FINE**2, code=c.code)
        self.fine = StyledConv(c.fine_width, c.fine_width, code=c.code)
        paint = 3 * (PAINTED // FINE) ** 2
        self.head = zeroed(conv2d(c.fine_width, c.maps + paint, kernel=3))

    def forward(self, landmarks: Tensor, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, S, S); S is that of `pictures` (P + 1, 3, S, S), see `pictures_at`."""
        maps, paint = self.maps(landmarks)
        return self.mixed(maps, paint, pictures)

    def pictures_at(self, size: int) -> Tensor:
        """The stored pictures in [0, 1], (P + 1, 3, `size`, `size`)."""
        return shrink(self.pictures.to(self.rest.dtype) / 255, size)

    def maps(self, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """Fine maps (B, M, F, F), and paint (B, 3, 2 F, 2 F)."""
        c = self.config
        z, h = self.codes(landmarks)
        amounts = SETTLED * self.amounts(torch.cat([z, h], dim=1))
        coarse = self.base + SETTLED * (amounts @ self.fields).view(-1, *self.base.shape)
        # Under the last picture's flow: in an open mouth every place has an own origin.
        flow = FLOW_UNIT * coarse[:, 2 * c.pictures - 2 : 2 * c.pictures]
        moved = warp(self.features.expand(len(z), -1, -1, -1), flow)
        x = self.enter(torch.cat([moved, coarse], dim=1), h)
        x = x + self.body(x, h)
        x = F.pixel_shuffle(self.up(x, h), FINE)
        x = self.fine(x, h)
        maps, paint = self.head(x).split([c.maps, self.head.out_channels - c.maps], dim=1)
        maps = enlarge(coarse, FINE * c.coarse) + maps
        flows, logits = maps.split([2 * c.pictures, c.pictures], dim=1)
        # The CPU kernel looks up whatever address a NaN turns into.
        maps = torch.nan_to_num(torch.cat([FLOW_UNIT * flows, logits], dim=1))
        return maps, F.pixel_shuffle(paint, PAINTED // FINE)

    def codes(self, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, K) and h (B, C)."""
        z = (landmarks.flatten(1) - self.rest) @ self.axes
        return z, self.mlp(z)

    def mixed(self, maps: Tensor, paint: Tensor, pictures: Tensor) -> Tensor:
        """The picture, of fine maps and paint, and pictures (P + 1, 3, S, S).

        At full size every pass over the picture takes as long as a convolution, so there are few.
        """
        size, count = pictures.shape[-1], self.config.pictures
        # Channels last is twice as fast to enlarge, and how the sampling wants its places.
        maps = maps.contiguous(memory_format=torch.channels_last)
        places = enlarge(maps[:, : 2 * count], size).permute(0, 2, 3, 1)
        centres = (torch.arange(size, device=maps.device) * 2 + 1).to(maps.dtype) / size - 1
        grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)
        places = places + grid.repeat(1, 1, count)
        shares = torch.sigmoid(enlarge(maps[:, 2 * count :], size))
        moved = [
            F.grid_sample(
                picture.expand(len(maps), -1, -1, -1),
                place,
                mode="bilinear",
                padding_mode="border",
                align_corners=False,
            )
            for picture, place in zip(pictures[:-1].split(1), places.split(2, dim=-1), strict=True)
        ]
        found = moved[0]
        for number, layer in enumerate((*moved[1:], pictures[-1:])):
            found = torch.lerp(found, layer, shares[:, number : number + 1])
        return found + enlarge(paint, size)


class StyledConv(nn.Module):
    """Convolution 3x3 whose channels a code scales and shifts, then a leaky ReLU."""

    def __init__(self, before: int, after: int, *, code: int) -> None:
        super().__init__()
        self.conv = conv2d(before, after, kernel=3, bias=False)
        self.style = zeroed(nn.Linear(code, 2 * after))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.style(code)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        return leaky_relu(self.conv(x) * (1 + scale) + shift)
