"""Teeth, tongue and the dark behind them, drawn where a source doesn't show its opened mouth.

Per source: where its arches are, in which colours, and its own teeth where it shows them. Per
frame: the drawn layers, which the mouth's network sees and lights. Nothing is drawn over what the
source shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.dental_arch import (
    LOWER_LIP,
    SKULL,
    UPPER_LIP,
    Bite,
    Inside,
    SkullPose,
    look_inside,
)
from metaportrait_cli.face.regions import PATCHES, cut_patch, patch_to_picture, to_patch
from metaportrait_cli.motion.alignment import similarity
from metaportrait_cli.networks import teeth as layout
from metaportrait_cli.networks.teeth import BRIGHT, GAMMA, TeethConfig, with_teeth
from metaportrait_cli.render.mouths.own_teeth import (
    LUMA,
    SOFTNESS,
    Colours,
    Row,
    TeethOfPerson,
    blended,
    own_teeth,
    softness_of,
    teeth_of_person,
)
from metaportrait_cli.render.mouths.shown import SHUT, ShownMouth
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.tensors import read_arrays, read_config

PART = "teeth"
# Light follows so slowly: the network sees each frame alone, and would let teeth flicker.
STEADY_SECONDS = 0.1
# Means of light and shade are dull: what of each, as a logarithm, is shown. Lower teeth are seen or
# not: the power of their odds.
UPPER_SHADE, UPPER_LIGHT, LOWER_SHADE, DECIDED = 0.7, 1.5, 0.5, 3
# Light makes teeth no whiter than this, in linear light: gaps would go under.
WHITEST_UPPER, WHITEST_LOWER = 0.7, 0.55
# What is behind the teeth: the tongue is lighter than flesh, the rest darker.
TONGUE_LIGHT, CAVITY_DARK = 1.0, 0.7
# The channels that are drawn, counted from the first of them.
_FIRST = layout.DRAWN.start


def _own(channels: slice) -> slice:
    return slice(channels.start - _FIRST, channels.stop - _FIRST)


OPENING, UPPER, LOWER = _own(layout.OPENING), _own(layout.UPPER), _own(layout.LOWER)
BEHIND, RIM, NEAR, GAP = (
    _own(part) for part in (layout.BEHIND, layout.RIM, layout.NEAR, layout.GAP)
)
CHANNELS = GAP.stop
_COLOURS = {part.start + channel for part in (UPPER, LOWER, BEHIND) for channel in range(3)}
RIM_MM = 0.6
"""How far the shade of lips reaches into the mouth"""


def skull_pose(shape: NDArray[np.floating], points: NDArray[np.float32]) -> SkullPose:
    """Of a face (478, 3) whose points `SKULL` have this shape (30, 3) in the skull frame."""
    rotation, scale, shift = similarity(
        shape[None], points[None, list(SKULL)], np.ones((1, len(SKULL)))
    )
    return SkullPose(rotation[0], float(scale[0]), shift[0])


def raised_features(bite: Bite, skull: NDArray[np.floating]) -> NDArray[np.floating]:
    """What tells how far the lower teeth stand above the lip, (7,), in mm of the skull frame."""
    up, low = skull[list(UPPER_LIP)], skull[list(LOWER_LIP)]
    gap = float((low[1:-1, 1] - up[1:-1, 1]).max())
    middle = low[4:7].mean(0)
    arch, turn = bite.lower(bite.jaw(skull))
    edge = turn @ (arch.middle - bite.hinge) + bite.hinge
    return np.array(
        [
            middle[1] - edge[1],
            gap,
            min(gap, 8.0),
            low[-1, 0] - low[0, 0],
            middle[1] - bite.upper.middle[1],
            middle[2] - bite.upper.middle[2],
            skull[17, 1] - skull[14, 1],
        ]
    )


def tongue(inside: Inside) -> NDArray[np.float32]:
    """(H, W, 2): how light a tongue lying behind the lower teeth is, and where it is."""
    x, y = np.moveaxis(inside.over_teeth, -1, 0)
    across = np.clip(np.abs(x) / TONGUE_WIDTH, 0, 1)
    height = min(TONGUE_SHARE * inside.gap, TONGUE_HEIGHT)
    height *= float(smoothstep((inside.gap - 5) / 10))
    below_top = y + height * (1 - across**2)
    there = smoothstep(below_top / 5 + 0.5) * (height > 0)
    # Lit from the front: its top turns away into the dark, its middle dips.
    light = smoothstep((below_top + 1) / 12) * (1 - 0.5 * across**2)
    dip = 1 - 0.25 * np.exp(-((x / 3.0) ** 2)) * smoothstep(below_top / 4)
    return np.stack([there * light * dip, there], axis=-1).astype(np.float32)


TONGUE_WIDTH, TONGUE_HEIGHT, TONGUE_SHARE = 24.0, 14.0, 0.42
RAISED = (-3.0, 5.0)
"""Lower teeth stand no farther from the middle of the lip, in mm"""


# Linear light as channels of a patch, in steps fine enough for what is dark: roots take long.
_STEPS = 8191
_ENCODED = np.rint(255 * (np.arange(_STEPS + 1) / _STEPS) ** (1 / GAMMA)).astype(np.uint8)
_LINEAR = ((np.arange(256) / 255) ** GAMMA).astype(np.float32)


@dataclass(frozen=True)
class Drawn:
    """One mouth: its inside, and the layers (16, H, W) over its box, in the order of the network's
    channels from `layout.DRAWN` on; colours are linear light."""

    inside: Inside
    layers: NDArray[np.float32]
    matrix: NDArray[np.float32]
    """(2, 3) from pixels of the mouth's patch to those of the box"""

    def patch(self) -> NDArray[np.uint8]:
        """The same as the network sees it, (16, P, P)."""
        size = PATCHES["mouth"]
        whole = np.zeros((CHANNELS, size, size), np.uint8)
        height, width = self.inside.opening.shape
        box = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float32)
        places = to_patch(box, self.matrix)
        x, y = np.clip(np.floor(places.min(0)).astype(int), 0, size - 1).tolist()
        across, down = np.ceil(places.max(0) - (x, y)).astype(int).tolist()
        across, down = min(across, size - x), min(down, size - y)
        matrix = self.matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ (x, y)
        seen = whole[:, y : y + down, x : x + across]
        for first in range(0, CHANNELS, 4):
            part = cv2.merge(list(self.layers[first : first + 4]))
            found = cut_patch(part, matrix, across, rows=down)
            # Rounds, and ends at 0 and 255.
            levels = cv2.multiply(found, (255.0,) * 4, dtype=cv2.CV_8U)
            for channel in range(4):
                if first + channel in _COLOURS:
                    steps = (found[..., channel] * np.float32(_STEPS / BRIGHT)).astype(np.intp)
                    seen[first + channel] = _ENCODED.take(steps, mode="clip")
                else:
                    seen[first + channel] = levels[..., channel]
        return whole


def drawn_patches(mouths: Sequence[Drawn | None]) -> list[NDArray[np.uint8]]:
    """Each one's patch (16, P, P); without anything drawn, nothing."""
    nothing = np.zeros((CHANNELS, PATCHES["mouth"], PATCHES["mouth"]), np.uint8)
    return [nothing if mouth is None else mouth.patch() for mouth in mouths]


class TeethPainter:
    """Draws the rows of teeth that were learnt."""

    def __init__(self, weights: Path, *, own: TeethOfPerson | None = None) -> None:
        """Of a file of weights; `own` is the person's upper row, where several pictures tell it.

        Raises `WeightsError`.
        """
        self._weights = weights
        self._own = own
        self.config = TeethConfig(**read_config(weights, PART))
        self.skull, self.upper, self.lower, self.raised = read_arrays(
            weights, PART, ("skull", "upper", "lower", "raised")
        )

    def open(
        self,
        crop: NDArray[np.uint8],
        points: NDArray[np.float32],
        *,
        rate: Fraction | None = None,
    ) -> OpenedTeeth:
        """Looks at a source crop (S, S, 3) with its face points (478, 3) in pixels.

        `rate` is that of the clip whose frames will be drawn, in order; `None` if frames have
        nothing to do with each other.
        """
        bite, pose = self._bite(points)
        own = own_teeth(bite, pose, crop, points, texture=self.upper, config=self.config)
        shown = ShownMouth.of(crop, points)
        upper = self.upper
        if self._own is not None:
            upper, bite = self._own.texture, self._own.of(bite)
        elif own is not None:
            upper = blended(upper, own, self.config)
        else:
            bite = shown.ending(bite, pose, points)
        bite = bite if own is None else own.bite
        return OpenedTeeth(
            self,
            bite,
            Colours.of(crop, points),
            upper=upper,
            shown=shown,
            softness=softness_of(crop, points),
            rate=rate,
        )

    def of_person(
        self, pictures: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]]
    ) -> TeethPainter:
        """One that knows the teeth of the person whose crops (S, S, 3) with their face points
        (478, 3) these are."""
        found = [
            own_teeth(*self._bite(points), crop, points, texture=self.upper, config=self.config)
            for crop, points in pictures
        ]
        shown = [one for one in found if one is not None]
        return TeethPainter(self._weights, own=teeth_of_person(shown, self.upper, self.config))

    def _bite(self, points: NDArray[np.float32]) -> tuple[Bite, SkullPose]:
        bite = Bite.of(skull_pose(self.skull, points).to_skull(points))
        return bite, skull_pose(bite.rest[list(SKULL)], points)


def bundled_teeth() -> TeethPainter:
    """With what ships. Raises `WeightsError`."""
    return TeethPainter(bundled_path("teeth"))


class OpenedTeeth:
    """One source's teeth, ready to be drawn."""

    def __init__(
        self,
        painter: TeethPainter,
        bite: Bite,
        colours: Colours,
        *,
        upper: NDArray[np.float32] | None = None,
        shown: ShownMouth = SHUT,
        softness: float = SOFTNESS,
        rate: Fraction | None = None,
    ) -> None:
        """`shown` is the source's own mouth, `softness` (mm) that of its picture."""
        self._painter = painter
        self.shown = shown
        self.bite = bite
        self.colours = colours
        self._softness = softness
        upper = painter.upper if upper is None else upper
        self._upper = Row(upper, painter.config, softness=softness)
        self._lower = Row(painter.lower, painter.config, softness=softness)
        self._follow = 1 - math.exp(-1 / (STEADY_SECONDS * float(rate))) if rate else 1.0
        self.light: NDArray[np.float32] | None = None
        """Of the last frame, (10, h, w), if its mouth was open"""

    def placed(self, picture: NDArray[np.uint8], points: NDArray[np.float32]) -> OpenedTeeth:
        """The same with the learnt upper row, where this picture (S, S, 3) of the face at
        (478, 3) shows the person's."""
        painter = self._painter
        pose = skull_pose(self.bite.rest[list(SKULL)], points)
        shown = own_teeth(
            self.bite, pose, picture, points, texture=painter.upper, config=painter.config
        )
        bite = shown.bite if shown else self.bite
        return OpenedTeeth(painter, bite, self.colours, shown=self.shown, softness=self._softness)

    def draw(
        self, points: NDArray[np.float32], gap: NDArray[np.float32], *, size: int
    ) -> Drawn | None:
        """What is between the lips of a driven face (478, 3) in a picture of `size`, unlit; `None`
        where they show nothing that the source doesn't. `gap` as of `OpenedRegions.repaint`."""
        pose = skull_pose(self.bite.rest[list(SKULL)], points)
        features = raised_features(self.bite, pose.to_skull(points))
        raised = float(self._painter.raised[:-1] @ features + self._painter.raised[-1])
        raised = float(np.clip(raised, *RAISED))
        inside = look_inside(self.bite, pose, points, size=size, unknown=gap, raised=raised)
        if inside is None:
            return None
        matrix = patch_to_picture(points, "mouth")
        matrix[:, 2] -= inside.corner
        return Drawn(inside, self._layers(inside, pose), matrix)

    def _layers(self, inside: Inside, pose: SkullPose) -> NDArray[np.float32]:
        layers = np.empty((CHANNELS, *inside.opening.shape), np.float32)
        colours = self.colours
        for part, row, places in (
            (UPPER, self._upper, inside.upper),
            (LOWER, self._lower, inside.lower),
        ):
            seen = row.drawn(places, pose.scale)
            grey = seen[..., :3].mean(-1, keepdims=True)
            seen[..., :3] = grey + colours.colourful * (seen[..., :3] - grey)
            seen[..., :3] *= colours.tooth
            layers[part] = seen.transpose(2, 0, 1)
        light, there = np.moveaxis(tongue(inside), -1, 0)
        behind = 1 + TONGUE_LIGHT * light - CAVITY_DARK * (1 - there)
        layers[BEHIND] = colours.flesh[:, None, None] * behind
        layers[RIM] = np.exp(-np.minimum(inside.below_lip, inside.above_lip) / RIM_MM)
        layers[NEAR] = np.stack([inside.below_lip, inside.above_lip]) / layout.FAR
        layers[GAP] = inside.gap / layout.WIDE
        layers[OPENING] = 1
        layers *= inside.opening
        # Nothing beyond the box, where patches go on with its border.
        layers[:, [0, -1]] = layers[:, :, [0, -1]] = 0
        return layers

    def blend(
        self, frame: NDArray[np.uint8], drawn: Drawn | None, light: NDArray[np.float32]
    ) -> None:
        """Draws the next frame's teeth over it (S, S, 3), in place, under the network's light."""
        if drawn is None:
            self.light = None
            return
        if self.light is not None:
            light = (self.light + self._follow * (light - self.light)).astype(np.float32)
        self.light = light
        _blend(frame, drawn, _decided(light, self.colours))


def _decided(light: NDArray[np.float32], colours: Colours) -> NDArray[np.float32]:
    """Light (10, h, w) as it would be seen, of which the network gives means."""
    found = light.copy()
    tooth = float(colours.tooth @ LUMA)
    for part, shade, lit, whitest in (
        (layout.ON_UPPER, UPPER_SHADE, UPPER_LIGHT, WHITEST_UPPER),
        (layout.ON_LOWER, LOWER_SHADE, 1.0, WHITEST_LOWER),
    ):
        grey = light[part].mean(0)
        most = math.log(max(1.0, whitest / tooth))
        # Its hue stays.
        found[part] += np.minimum(np.where(grey < 0, shade, lit) * grey, most) - grey
    odds = (light[layout.SEEN] / (1 - light[layout.SEEN] + 1e-4)) ** DECIDED
    found[layout.SEEN] = odds / (1 + odds)
    return found


def _blend(frame: NDArray[np.uint8], drawn: Drawn, light: NDArray[np.float32]) -> None:
    """Draws teeth under light (10, h, w) over a frame (S, S, 3), in place."""
    height, width = drawn.inside.opening.shape
    matrix = drawn.matrix.astype(np.float64)
    matrix[:, :2] *= PATCHES["mouth"] / light.shape[-1]
    # cv2 counts from the first pixel's centre.
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    planes = np.ascontiguousarray(light[: layout.SEEN.stop].transpose(1, 2, 0))
    moved = [
        cv2.warpAffine(
            np.ascontiguousarray(planes[..., part]),
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for part in (slice(0, 4), slice(4, 7))
    ]
    maps = np.concatenate(moved, axis=-1).transpose(2, 0, 1)[None]
    region = frame[drawn.inside.box]
    layers = drawn.layers[None]
    colour = with_teeth(
        _LINEAR[region].transpose(2, 0, 1)[None],
        upper=layers[:, UPPER],
        lower=layers[:, LOWER],
        rim=layers[:, RIM],
        light=maps,
        exp=np.exp,
    )
    shown = 255 * colour[0].clip(0, 1) ** (1 / GAMMA)
    region[:] = np.rint(shown.transpose(1, 2, 0)).astype(np.uint8)
