"""A student: one person, learnt from another renderer's pictures of them, small enough for a CPU.

MegaPortraits (Drobyshev et al., ACM MM 2022, Section 3.4) paints an avatar out of a constant
identity tensor. Here the identity tensors are of four kinds: a few pictures of the person, which
are moved and mixed rather than painted anew, so that skin and hair stay as sharp as they are; the
background behind; fields of motion, of which a frame's is a sum, as faces are of a morphable model;
and features, from which convolutions tell what is still missing.

    q = A p                                        an affine map brings the head back to its place
    z = whitened landmarks under A, and A;  h = MLP(z)             what the face does
    maps = base + sum_k (B (z, h))_k fields_k      coarse, of places q: motion, masks, rigidity
    maps, paint = convolutions(features, maps, h)  fine
    source of p = p + rigidity (q - p) + motion
    picture = mix(pictures there, background) + paint

Fields and convolutions see a head that stands still, so an eye is where it always is. There are no
norms, so there is nothing to fold. The output layer starts at zero. Several people may share the
MLP and the convolutions, see `Students`.

Shapes: B batch, P pictures, C channels. Pictures are RGB in [0, 1]; places and motion are (x, y) in
half sides of the picture from its middle (`align_corners=False`), motion is backward. Landmarks are
(B, 478, 3) in sides of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import enlarge, shrink, zeroed
from metaportrait_cli.networks.layers import conv2d, leaky_relu
from metaportrait_cli.networks.network import Network

LANDMARKS = 478
FINE, PAINTED = 2, 4
"""Sides of the fine maps and of the paint, in sides of the coarse ones"""
FLOW_UNIT = 0.05
"""Of stored motion, in half sides: an optimiser's steps then move pixels, not faces"""
LOGIT_UNIT = 4.0
"""Of stored masks"""
HEAD_WEIGHT = 3.0
"""Of the six numbers of A among the landmarks' coordinates"""
OF_ONE = (
    *("aligner", "rest", "axes", "pictures"),
    *("base", "amounts.weight", "fields", "features"),
)
"""What a student has of its person alone, by name; the rest, MLP and convolutions, may serve
several"""
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
        """Channels: a motion a picture, a mask for each but the first, the background's mask, and
        rigidity."""
        return 3 * self.pictures + 1


class Student(Network):
    """Landmarks -> pictures of the one person."""

    config_type = StudentConfig

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config)
        c = config
        self.register_buffer("aligner", torch.zeros(3, LANDMARKS))
        self.register_buffer("rest", torch.zeros(3 * LANDMARKS + 6))
        self.register_buffer("axes", torch.zeros(3 * LANDMARKS + 6, c.terms))
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
        head, seen = self.observed(landmarks)
        return self.mixed(*self.placed(head, *self.still(seen)), pictures)

    def pictures_at(self, size: int) -> Tensor:
        """The stored pictures in [0, 1], (P + 1, 3, `size`, `size`)."""
        return shrink(self.pictures.to(self.rest.dtype) / 255, size)

    def still(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, M, F, F) and paint (B, 3, 2 F, 2 F) of a head that stands still, of what
        `observed` gave: motion in half sides, masks as logits, rigidity."""
        c = self.config
        z, h = self.codes(seen)
        amounts = SETTLED * self.amounts(torch.cat([z, h], dim=1))
        coarse = self.base + SETTLED * (amounts @ self.fields).view(-1, *self.base.shape)
        maps, paint = self.trunk(coarse, h).split([c.maps, 3 * (PAINTED // FINE) ** 2], dim=1)
        maps = enlarge(coarse, FINE * c.coarse) + maps
        motion, masks, rigidity = maps.split([2 * c.pictures, c.pictures, 1], dim=1)
        maps = torch.cat([FLOW_UNIT * motion, LOGIT_UNIT * masks, rigidity], dim=1)
        return maps, F.pixel_shuffle(paint, PAINTED // FINE)

    def trunk(self, coarse: Tensor, h: Tensor) -> Tensor:
        """What convolutions add to coarse maps (B, M, G, G), and the paint, (B, C, F, F)."""
        x = torch.cat([self.features.expand(len(h), -1, -1, -1), coarse], dim=1)
        x = self.enter(x, h)
        x = x + self.body(x, h)
        x = F.pixel_shuffle(self.up(x, h), FINE)
        return self.head(self.fine(x, h))

    def placed(self, head: Tensor, maps: Tensor, paint: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, M - 1, F, F) of motion and masks, and paint (B, 3, 2 F, 2 F), where they belong
        in the picture under A (B, 3, 2)."""
        count = self.config.pictures
        # From where the head stands still to where it is; the CPU kernel looks up whatever address
        # a NaN turns into.
        head = torch.nan_to_num(head)
        here, there = grid(maps), head_places(grid(maps), head)  # (F, F, 2), (B, F, F, 2)
        motion, masks, rigidity = sampled(maps, there).split([2 * count, count, 1], dim=1)
        rigid = rigidity * (there - here).permute(0, 3, 1, 2)
        maps = torch.cat([motion + rigid.repeat(1, count, 1, 1), masks], dim=1)
        return torch.nan_to_num(maps), sampled(paint, head_places(grid(paint), head))

    def observed(self, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """A (B, 3, 2), which takes a place (x, y, 1) to where it is while the head stands still;
        and the landmarks there, with A's inverse, (B, 3 K + 6)."""
        points = 2 * landmarks[..., :2] - 1
        moved = self.aligner @ points  # (B, 3, 2): from the head at rest to this one, least squares
        (a, b), (c, d) = (moved[:, row].unbind(-1) for row in (0, 1))
        determinant = a * d - b * c
        inverse = torch.stack([d, -b, -c, a], dim=-1).view(-1, 2, 2) / determinant[:, None, None]
        still = (points - moved[:, 2:]) @ inverse
        depth = landmarks[..., 2] / determinant.abs().sqrt()[:, None]
        head = torch.cat([inverse, -moved[:, 2:] @ inverse], dim=1)
        pose = HEAD_WEIGHT * torch.cat([moved[:, :2].flatten(1), moved[:, 2]], dim=1)
        return head, torch.cat([still.flatten(1), depth, pose], dim=1)

    def codes(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, K) and h (B, C) of what `observed` gave."""
        z = (seen - self.rest) @ self.axes
        return z, self.mlp(z)

    def mixed(self, maps: Tensor, paint: Tensor, pictures: Tensor) -> Tensor:
        """The picture, of fine maps and paint, and pictures (P + 1, 3, S, S).

        At full size every pass over the picture takes as long as a convolution, so there are few.
        """
        size, count = pictures.shape[-1], self.config.pictures
        # Places rather than motion are enlarged, for they are few yet: the outermost two pixels of
        # a picture then repeat the third. Channels last is twice as fast to enlarge.
        motion, masks = maps.split([2 * count, count], dim=1)
        places = motion + grid(maps).permute(2, 0, 1).repeat(count, 1, 1)
        maps = torch.cat([places, masks], dim=1).contiguous(memory_format=torch.channels_last)
        maps = enlarge(maps, size)
        places = maps[:, : 2 * count].permute(0, 2, 3, 1)
        shares = torch.sigmoid(maps[:, 2 * count :].contiguous())
        moved = [
            sampled(picture.expand(len(maps), -1, -1, -1), place)
            for picture, place in zip(pictures[:-1].split(1), places.split(2, dim=-1), strict=True)
        ]
        found = moved[0]
        for number, layer in enumerate((*moved[1:], pictures[-1:])):
            found = torch.lerp(found, layer, shares[:, number : number + 1])
        return found + enlarge(paint, size)


class Students(Network):
    """Several people, each with identity tensors of their own, and one MLP and set of
    convolutions."""

    config_type = StudentConfig

    def __init__(self, config: StudentConfig, count: int = 1) -> None:
        super().__init__(config)
        first, *others = (Student(config) for _ in range(count))
        own = {name.partition(".")[0] for name in OF_ONE}
        for other in others:
            for name, module in first.named_children():
                if name not in own:
                    setattr(other, name, module)
        self.people = nn.ModuleList([first, *others])


def grid(like: Tensor) -> Tensor:
    """Places (S, S, 2) of the pixels of (…, S, S)."""
    size = like.shape[-1]
    centres = (torch.arange(size, device=like.device) * 2 + 1).to(like.dtype) / size - 1
    return torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)


def head_places(places: Tensor, head: Tensor) -> Tensor:
    """Places (S, S, 2) under A (B, 3, 2): (B, S, S, 2)."""
    linear = places.flatten(0, 1) @ head[:, :2] + head[:, 2:]
    return linear.view(-1, *places.shape)


def sampled(maps: Tensor, places: Tensor) -> Tensor:
    """(B, C, H, W) at places (B, S, S, 2): (B, C, S, S); beyond the border the edge repeats."""
    return F.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)


class StyledConv(nn.Module):
    """Convolution 3x3 whose channels a code scales and shifts, then a leaky ReLU."""

    def __init__(self, before: int, after: int, *, code: int) -> None:
        super().__init__()
        self.conv = conv2d(before, after, kernel=3, bias=False)
        self.style = zeroed(nn.Linear(code, 2 * after))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.style(code)[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1)
        return leaky_relu(self.conv(x) * (1 + scale) + shift)
