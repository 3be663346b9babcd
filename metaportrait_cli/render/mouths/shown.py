"""What a source shows between its lips: how much of that is teeth, and how much the dark below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.dental_arch import Bite, SkullPose
from metaportrait_cli.networks.teeth import GAMMA
from metaportrait_cli.render.mouths.own_teeth import LEAST_SEEN, LUMA, UPWARDS, opening_height

# Lines from the upper to the lower lip, between those shares of its width, and places on each.
LINES, WITHIN, PLACES = 25, (0.25, 0.75), 64
# Of an opening's light, those percentiles are teeth and dark, if they differ by so much.
LIGHTEST, DARKEST, APART = 92, 8, 0.35
MOSTLY = 0.7
"""Share of the lines on which what hangs is no higher than it counts: at the sides lips hide it"""
# Teeth that hang from the upper lip begin in the upper part of a line, wherever landmarks have the
# lip's edge; what interrupts them by less (mm) is within them.
HANGING, GAP = 0.5, 0.8
# What a source shows hangs from the upper lip and rides on it. A strip of teeth no higher than the
# first (mm) would be a second row above teeth that stay in the skull: it is drawn over the more,
# the farther the mouth opens beyond it, and before that the dark below it, if that is so much of
# the opening. A source that shows more keeps all of it, and so does one whose open mouth shows
# none: its person may speak without.
STRIP = (5.0, 8.0)
BEYOND_STRIP = (2.0, 5.0)
DARK, BEYOND_DARK = (0.3, 0.45), 2.0
TEETH_TOLD = 1.6
"""Millimetres above the dark from which on they are teeth, and no lip beside its landmarks"""
LIP = 1.5
"""Millimetres by which the lower lip's edge, or its shade, may lie above its landmarks"""


@dataclass(frozen=True)
class ShownMouth:
    height: float
    """Of the opening, in mm"""
    teeth: float
    """Of what hangs from the upper lip, in mm; all of it where no dark is seen below"""
    dark: float
    """What share of the opening, from below, is dark, in [0, 1]"""

    @classmethod
    def of(cls, crop: NDArray[np.uint8], points: NDArray[np.float32]) -> ShownMouth:
        """In a picture (S, S, 3) of a face (478, 3)."""
        height = opening_height(points)
        if height < LEAST_SEEN:
            return cls(height, height, 0.0)
        down = np.linspace(0, 1, PLACES)
        upper, lower = _lips(points)  # (LINES, 2)
        lines = upper[:, None] + down[None, :, None] * (lower - upper)[:, None]
        x, y = np.moveaxis(lines.astype(np.float32) - 0.5, -1, 0)
        seen = cv2.remap(crop, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        light = (seen / 255.0) ** GAMMA @ LUMA
        light = cv2.blur(light, (1, 3))  # along the lips
        dark, teeth = np.percentile(light, (DARKEST, LIGHTEST))
        if dark > APART * teeth:
            return cls(height, height, 0.0)
        bright = light > np.sqrt(max(dark, 1e-3) * teeth)
        ends = np.array([_end(line, max(1, round(GAP / height * PLACES))) for line in bright])
        end = float(np.quantile(ends, MOSTLY)) / PLACES
        return cls(height, end * height, max(0.0, 1 - end - LIP / height))

    @classmethod
    def mixed(cls, mouths: Sequence[ShownMouth], shares: NDArray[np.floating]) -> ShownMouth:
        """Several ones as one, by their shares (N,)."""
        table = np.array([(mouth.height, mouth.teeth, mouth.dark) for mouth in mouths])
        return cls(*(shares @ table).tolist())

    def replaced(
        self, points: NDArray[np.float32], gap: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The part (N, 2) of the mouth of a driven face (478, 3) that is to be made up: `gap`,
        which this mouth doesn't show, and above it thin teeth, or first the dark below them; of
        all others the rim, in which their own lip shades them."""
        beyond = opening_height(points) - self.height
        told = self.teeth >= TEETH_TOLD
        thin = 1 - _ramp(self.teeth if told else self.height, *STRIP)
        dark = told * self.dark * _ramp(self.dark, *DARK) * _ramp(beyond, 0, BEYOND_DARK)
        lip = points[[upper for upper, _ in topology.INNER_LIPS], :2]
        wider = gap.copy()
        hanging = slice(1, 1 + len(lip))
        up = thin * max(_ramp(beyond, *BEYOND_STRIP), dark)
        rim = min(1.0, LIP / max(self.height, 1e-6)) * _ramp(beyond, 0, BEYOND_DARK)
        wider[hanging] += max(up, rim) * (lip - gap[hanging])
        return wider

    def ending(self, bite: Bite, pose: SkullPose, points: NDArray[np.float32]) -> Bite:
        """The bite whose upper row ends where these teeth of a face (478, 3) do, if dark is seen
        below them; no lower than the lip, if the dark begins there."""
        if self.dark < DARK[1]:
            return bite
        upper, lower = points[list(topology.INNER_LIPS[len(topology.INNER_LIPS) // 2])]
        end = pose.to_skull((upper + self.teeth / self.height * (lower - upper))[None])[0]
        down = float(np.clip(end[1] - bite.upper.middle[1], -UPWARDS, UPWARDS))
        if self.teeth < TEETH_TOLD:
            down = min(down, 0.0)
        middle = bite.upper.middle + np.array([0, down, 0])
        return replace(bite, upper=replace(bite.upper, middle=middle))


SHUT = ShownMouth(0.0, 0.0, 0.0)


def _lips(points: NDArray[np.float32]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Places (LINES, 2) on the edges of a face's upper and lower lip, opposite each other."""
    pairs = points[np.array(topology.INNER_LIPS), :2]  # (N, 2, 2)
    at = np.linspace(*WITHIN, LINES) * (len(pairs) - 1)
    places = [
        np.stack([np.interp(at, np.arange(len(pairs)), pairs[:, lip, axis]) for axis in (0, 1)], -1)
        for lip in (0, 1)
    ]
    return places[0], places[1]


def _end(bright: NDArray[np.bool_], gap: int) -> int:
    """Where on a line what is bright from its upper part on ends; 0 if nothing is."""
    start = int(bright.argmax())
    if not bright[start] or start > HANGING * len(bright):
        return 0
    dark = 0
    for place in range(start, len(bright)):
        dark = 0 if bright[place] else dark + 1
        if dark > gap:
            return place - gap
    return len(bright) - dark


def _ramp(value: float, low: float, high: float) -> float:
    return float(smoothstep((value - low) / (high - low)))
