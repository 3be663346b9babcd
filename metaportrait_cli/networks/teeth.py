"""What is learnt of teeth: how a row of them looks, and the light in which a mouth shows them.

Teeth are drawn, not painted: see `face/dental_arch.py`. The network sees the drawn layers with
lips and skin around them and gives coarse maps of light alone, so it can't blur the gaps between
teeth, nor can it invent them. It is in `networks/teeth_light.py`; what is here needs no torch.

Shapes: B mouths, C channels, P the side of a patch. Colours are linear light unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GAMMA = 2.2
SKULL_POINTS = 30
# Channels of the inputs, in this order.
SEEN, PAINT = slice(0, 3), slice(3, 6)
OPENING = slice(6, 7)
UPPER, LOWER, TONGUE = slice(7, 11), slice(11, 15), slice(15, 17)
RIM, NEAR, GAP = slice(17, 18), slice(18, 20), slice(20, 21)
TOOTH, FLESH = slice(21, 24), slice(24, 27)
CHANNELS = 27
# Of what it gives: logarithms of light on the upper teeth, the lower ones and what is behind, and
# how much of the lower ones is seen. Where it begins, and how far it may go.
LIGHT_CHANNELS = 8
FIRST = (-0.25, -0.25, -0.25, -0.8, 1.0, -2.0, -2.1, -2.1)
DARKEST, BRIGHTEST, DARKEST_BACK = -3.0, 0.8, -5.0
# Lips shade what they touch; of the mouth's inside, the tongue is lighter and the rest darker.
RIM_SHADE, TONGUE_LIGHT, CAVITY_DARK = 0.45, 1.0, 0.7
# How far upper teeth follow paint that is brighter, and over how many pixels of the patch.
LIFT, COARSE, DARK = 0.6, 9, 0.004
# What the height of the lower teeth above the lower lip is told by, see `raised`.
RAISED_FEATURES = 7


@dataclass(frozen=True)
class TeethConfig:
    pixels: int = 6
    """Pixels of a texture to a millimetre"""
    reach: float = 34.0
    """Millimetres that a texture goes along the arch to either side"""
    gum: float = 16.0
    beyond: float = 2.0
    """Millimetres from the edges of the teeth towards the gum, and beyond them"""
    patch: int = 64
    """P"""
    widths: tuple[int, ...] = (32, 48, 64, 64)
    """From half the patch's size down"""

    @property
    def texture(self) -> tuple[int, int, int]:
        """(H, W, 4): the gum is above. Colours are shares of a tooth's, by which coverage, the
        fourth channel, is multiplied already."""
        height = round((self.gum + self.beyond) * self.pixels)
        return height, round(2 * self.reach * self.pixels), 4


def lit(inputs: Any, light: Any, *, exp: Callable[[Any], Any]) -> Any:
    """The inside of mouths (B, 3, H, W) in linear light: the layers among `inputs` (B, 27, H, W),
    far to near, under `light` (B, 8, H, W): arrays with numpy's `exp`, or tensors with torch's."""
    on_upper, on_lower = exp(light[:, :3]), exp(light[:, 3:4])
    seen, behind = light[:, 4:5], exp(light[:, 5:])
    upper, lower = inputs[:, UPPER], inputs[:, LOWER]
    tooth, flesh = inputs[:, TOOTH], inputs[:, FLESH]
    tongue, tongue_there = inputs[:, TONGUE][:, :1], inputs[:, TONGUE][:, 1:]
    colour = flesh * behind * (1 + TONGUE_LIGHT * tongue - CAVITY_DARK * (1 - tongue_there))
    colour = colour * (1 - lower[:, 3:] * seen) + lower[:, :3] * seen * tooth * on_lower
    colour = colour * (1 - upper[:, 3:]) + upper[:, :3] * tooth * on_upper
    return colour * (1 - RIM_SHADE * inputs[:, RIM])
