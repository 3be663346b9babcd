"""The network of the mouth: what is drawn between the lips gets light, the rest is painted.

Teeth are drawn, not painted (see `face/dental_arch.py`): the network sees them in its patches and
gives coarse maps of light for them, so it can't blur the gaps between them, nor invent teeth. What
it paints, as `networks/regions.py` does, lies behind the teeth and around them: lips and skin,
the dark and the tongue.

Shapes: B mouths, P the side of a patch. Light is logarithms of factors in linear light.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metaportrait_cli.networks.compact_blocks import enlarge, zeroed
from metaportrait_cli.networks.layers import conv2d
from metaportrait_cli.networks.regions import (
    RegionConfig,
    RegionNetwork,
    Repainted,
    colourful,
)
from metaportrait_cli.networks.teeth import (
    BEHIND,
    BEHIND_HUE,
    BEHIND_TINT,
    BLACK,
    BRIGHT,
    BRIGHTEST,
    DARK,
    DARKEST,
    DRAWN,
    FIRST,
    GAMMA,
    LOWER,
    MOST_BEHIND,
    ON_BEHIND,
    OPENING,
    PAINT_BEHIND,
    PALEST,
    RIM,
    RIM_SHADE,
    TEETH_TINT,
    UPPER,
    with_teeth,
)

# The head's own channels: grey light of the three, seen, colours of teeth and of what is behind.
HEAD_CHANNELS = 10


def encoded(colour: Tensor) -> Tensor:
    """Linear light in [0, BRIGHT] as channels in [0, 1], with the eye's steps."""
    return (colour / BRIGHT).clamp(0, 1) ** (1 / GAMMA)


def decoded(channels: Tensor) -> Tensor:
    """Undoes `encoded`."""
    # Not every machine knows the powers of 0.
    return BRIGHT * channels.clamp(min=BLACK) ** GAMMA


class MouthNetwork(RegionNetwork):
    """A region network with a second head for light, at a quarter of the patch's size."""

    channels = DRAWN.stop

    def __init__(self, config: RegionConfig) -> None:
        super().__init__(config)
        self.light = zeroed(conv2d(config.widths[1], HEAD_CHANNELS, kernel=3))

    def forward(self, patches: Tensor, identity: Tensor) -> Repainted:
        """`patches` (B, 27, P, P) in [0, 1], `identity` (B, 128)."""
        change, mask, light = self.seen(patches, identity)
        below = below_teeth(patches, change, light)
        upper, lower = (
            torch.cat([decoded(patches[:, row][:, :3]), patches[:, row][:, 3:]], dim=1)
            for row in (UPPER, LOWER)
        )
        fine = enlarge(light, patches.shape[-1])
        linear = below.clamp(DARK, 1) ** GAMMA
        lit = with_teeth(
            linear, upper=upper, lower=lower, rim=patches[:, RIM], light=fine, exp=torch.exp
        )
        # A difference, so that what lies below stays as it is where no teeth are.
        return Repainted(image=below + _shown_as(lit) - _shown_as(linear), mask=mask)

    def found_of(self, entered: Tensor, identity: Tensor) -> list[Tensor]:
        """The head (B, 16, P / 2, P / 2), and light before it is bounded, (B, 10, P / 4, P / 4)."""
        features = self.features(entered, identity)
        return [self.head(features[-1]), self.light(features[-2])]

    def seen(self, patches: Tensor, identity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The painted change (B, 3, P, P), its mask (B, 1, P, P), and light (B, 10, P/4, P/4)."""
        head, found = (x.float() for x in self.found(patches, identity))
        change, mask = self.painted(head, patches)
        grey = (found[:, :3] + found.new_tensor(FIRST)[:, None, None]).clamp(DARKEST, BRIGHTEST)
        share = colourful(patches.float())
        tint = TEETH_TINT * share * _coloured(found[:, 4:7])
        hue = found.new_tensor(BEHIND_HUE)[:, None, None]
        behind = share * (BEHIND_TINT * _coloured(found[:, 7:]) + hue)
        light = [
            grey[:, :1] + tint,
            grey[:, 1:2] + tint,
            torch.sigmoid(found[:, 3:4] + 1),
            grey[:, 2:].clamp(max=MOST_BEHIND) + behind,
        ]
        return change, mask, torch.cat(light, dim=1)


REGION_NETWORKS: dict[str, type[RegionNetwork]] = {"mouth": MouthNetwork, "eyes": RegionNetwork}
"""How regions' networks are built, by kind"""


def below_teeth(patches: Tensor, change: Tensor, light: Tensor) -> Tensor:
    """The patch (B, 3, P, P) without its teeth: what was warped, in the opening what is drawn
    behind under `light` (B, 10, h, w), and on both the painted change."""
    opening = patches[:, OPENING]
    on_behind = enlarge(light[:, ON_BEHIND], patches.shape[-1]).exp()
    behind = decoded(patches[:, BEHIND]) * on_behind * (1 - RIM_SHADE * patches[:, RIM])
    warped = patches[:, :3].clamp(DARK, 1)
    mixed = warped**GAMMA * (1 - opening) + behind
    painted = change * (1 - (1 - PAINT_BEHIND) * opening)
    lighter = painted.mean(dim=1, keepdim=True).clamp(min=BLACK) / PALEST
    painted = painted * (1 + opening * (torch.tanh(lighter) / lighter - 1))
    return patches[:, :3] + painted + _shown_as(mixed) - warped


def _shown_as(linear: Tensor) -> Tensor:
    return linear.clamp(DARK**GAMMA, 1) ** (1 / GAMMA)


def _coloured(found: Tensor) -> Tensor:
    """Three channels (B, 3, h, w) in (-1, 1) that have a hue and no brightness."""
    return torch.tanh(found - found.mean(dim=1, keepdim=True))
