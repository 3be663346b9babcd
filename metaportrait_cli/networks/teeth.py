"""What is drawn of teeth: how rows of them are written down, what a mouth's network sees of them,
and how they look under the light that it gives. What is here needs no torch.

Teeth are drawn, not painted: see `face/dental_arch.py`. Colours are linear light unless said
otherwise. Shapes: B mouths, P the side of a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GAMMA = 2.2
SKULL_POINTS = 30
RAISED_FEATURES = 7
"""What the height of the lower teeth above the lip is told by, see `render/mouths/teeth.py`"""
BRIGHT = 1.5
"""Linear light that counts as 1 where drawn colours are written down as channels"""
# What follows the channels of all regions, all multiplied by how far the mouth is open there and
# may be drawn, the first. Colours are powers of linear light; those of teeth are multiplied by
# coverage, too, their fourth channel.
DRAWN = slice(11, 27)
OPENING = slice(11, 12)
UPPER, LOWER = slice(12, 16), slice(16, 20)
BEHIND = slice(20, 23)
RIM, NEAR, GAP = slice(23, 24), slice(24, 26), slice(26, 27)
"""How near lips are (1 where they touch), millimetres to the upper and the lower one in `FAR`s,
and the height of the opening in `WIDE`s"""
FAR, WIDE = 20.0, 30.0
COLOURS = (slice(0, 3), slice(3, 6), slice(12, 15), slice(16, 19), BEHIND)
"""All that are colours"""
# Of the light: on the upper teeth, on the lower ones, how much of these is seen, what is behind.
ON_UPPER, ON_LOWER, SEEN, ON_BEHIND = slice(0, 3), slice(3, 6), slice(6, 7), slice(7, 10)
RIM_SHADE = 0.45
"""By which lips shade what they touch"""

# What the network's head of light starts at, and the range of its grey light.
FIRST = (-0.25, -0.8, -2.0)
DARKEST, BRIGHTEST = -4.0, 0.6
# Teeth of living people are nearly neutral; so far may light tint them, and what is behind.
TEETH_TINT, BEHIND_TINT = 0.08, 0.25
# Paint behind teeth is the mean of all tongues, teeth and darkness that there might be, a pale
# mass: so much of it is shown, lightens by no more than this, and what is drawn there gets no more
# light.
PAINT_BEHIND, PALEST, MOST_BEHIND = 0.6, 0.22, -1.4
# Means are greyer than flesh: logarithms of red, green and blue.
BEHIND_HUE = (0.14, -0.1, -0.04)
# Darker is as dark where light is mixed: roots are steep there. And as drawn colours are read.
DARK, BLACK = 0.02, 1e-3


@dataclass(frozen=True)
class TeethConfig:
    pixels: int = 6
    """Pixels of a texture to a millimetre"""
    reach: float = 34.0
    """Millimetres that a texture goes along the arch to either side"""
    gum: float = 16.0
    beyond: float = 2.0
    """Millimetres from the edges of the teeth towards the gum, and beyond them"""

    @property
    def texture(self) -> tuple[int, int, int]:
        """(H, W, 4): the gum is above. Colours are shares of a tooth's, by which coverage, the
        fourth channel, is multiplied already."""
        height = round((self.gum + self.beyond) * self.pixels)
        return height, round(2 * self.reach * self.pixels), 4


def with_teeth(
    below: Any, *, upper: Any, lower: Any, rim: Any, light: Any, exp: Callable[[Any], Any]
) -> Any:
    """Teeth before what is `below` (B, 3, H, W), in linear light; the lower row is farther.

    `upper` and `lower` (B, 4, H, W) and `rim` (B, 1, H, W) as drawn, `light` (B, 10, H, W): arrays
    with numpy's `exp`, or tensors with torch's.
    """
    shade, seen = 1 - RIM_SHADE * rim, light[:, SEEN]
    colour = below * (1 - lower[:, 3:] * seen)
    colour = colour + shade * seen * lower[:, :3] * exp(light[:, ON_LOWER])
    colour = colour * (1 - upper[:, 3:])
    return colour + shade * upper[:, :3] * exp(light[:, ON_UPPER])
