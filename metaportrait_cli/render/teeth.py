"""Teeth, tongue and the dark behind them, drawn where a source doesn't show its opened mouth.

Per source: where its arches are, in which colours, and its own teeth where it shows them. Per
frame: the drawn layers, lit by a small network in linear light. Nothing is drawn over what the
source shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
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
from metaportrait_cli.face.landmark_image import filled_polygon
from metaportrait_cli.face.regions import cut_patch, patch_side, patch_to_picture
from metaportrait_cli.motion.alignment import similarity
from metaportrait_cli.networks import teeth as layout
from metaportrait_cli.networks.swift.function import Function, Running, SwiftFunction
from metaportrait_cli.networks.teeth import GAMMA, TeethConfig, lit
from metaportrait_cli.render.own_teeth import Row, own_teeth
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.shelf import WeightsShelf
from metaportrait_cli.weights.tensors import read_arrays, read_config

PART = "teeth"
LUMA = np.array([0.2126, 0.7152, 0.0722])
# Lids may hide the whites of the eyes.
EYES_TO_TEETH, LEAST_OF_SKIN = 1.3, 0.7
_SKIN = (205, 425, 50, 280, 187, 411, 200, 199)
_LIPS = (0, 17, 37, 267, 84, 314)
# Light follows so slowly: the network sees each frame alone, and would let teeth flicker.
STEADY_SECONDS = 0.1
# Share of its colour that light on the upper teeth keeps.
UPPER_TINT = 0.5
# Means of light and shade are shade: what share of it, as a logarithm, is kept.
UPPER_SHADE = 0.7
# No teeth are whiter than the first, nor lit more than by the second.
WHITEST, MOST_LIGHT = 0.8, 0.4
MOST_BEHIND = -1.3
# What is behind comes out greyer than it is, as means do: logarithms of shares of red, green, blue.
BEHIND_TINT = np.array([0.08, -0.06, -0.02], np.float32)


@dataclass(frozen=True)
class Colours:
    """Of one source, in linear light: (3,) each."""

    tooth: NDArray[np.floating]
    flesh: NDArray[np.floating]
    colourful: float
    """0 for a grey photo, 1 for one in colour"""

    @classmethod
    def of(cls, crop: NDArray[np.uint8], points: NDArray[np.float32]) -> Colours:
        """By the skin's: regressions over the photos that the teeth were learnt from."""
        pupils = float(np.linalg.norm(points[468] - points[473]))

        def around(places: Sequence[int], reach: int) -> NDArray[np.floating]:
            cut = [
                crop[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
                for x, y in np.clip(points[list(places), :2].astype(int), 0, len(crop) - 1).tolist()
            ]
            pixels = np.concatenate([part.reshape(-1, 3) for part in cut])
            return np.median((pixels / 255.0) ** GAMMA, axis=0) + 1e-3

        reach = max(1, int(0.03 * pupils))
        skin, lips = around(_SKIN, reach), around(_LIPS, max(1, reach // 2))
        colourful = float(smoothstep(float(np.ptp(skin) / skin.max()) / 0.12))
        bright = float(skin @ LUMA)
        red, blue = np.log(skin[0] / skin[1]), np.log(skin[2] / skin[1])
        hue = np.array([0.2 + 0.3 * (red - 0.76), 0.0, -0.15 + 0.35 * (blue + 0.32)])
        hue = np.exp(hue * colourful)
        by_skin = 0.8 * math.exp(-0.05 + 0.62 * math.log(bright))
        # Hardly whiter than the eyes: those of paintings are dark.
        by_eyes = max(EYES_TO_TEETH * _eye_white(crop, points), LEAST_OF_SKIN * by_skin)
        tooth = hue / (hue @ LUMA) * min(0.85, by_skin, by_eyes)
        flesh = np.sqrt(lips / (lips @ LUMA) * np.array([1.9, 0.75, 0.75]))
        flesh = 1 + (flesh - 1) * colourful
        return cls(tooth, flesh / (flesh @ LUMA) * bright, colourful)


def _eye_white(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> float:
    """Linear brightness of the light parts of a face's eyes."""
    found = []
    for name in ("left_eye", "right_eye"):
        outline = points[topology.ring(name), :2]
        x0, y0 = np.clip(np.floor(outline.min(0)).astype(int), 0, len(crop) - 2).tolist()
        x1, y1 = np.clip(np.ceil(outline.max(0)).astype(int), 1, len(crop)).tolist()
        side = max(x1 - x0, y1 - y0, 1)
        mask = filled_polygon(outline - (x0, y0), side=side, size=side)
        part = crop[y0:y1, x0:x1]
        inside = part[mask[: part.shape[0], : part.shape[1]] > 200]
        if len(inside):
            found.append(np.percentile((inside / 255.0) ** GAMMA @ LUMA, 90))
    return float(np.mean(found)) if found else 1.0


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


@dataclass(frozen=True)
class Drawn:
    """One frame's mouth: its inside, the layers (C, H, W) over its box, and the patch of it."""

    frame: int
    inside: Inside
    layers: NDArray[np.float32]
    matrix: NDArray[np.float32]
    """(2, 3) from pixels of the patch to those of the picture"""

    def to_box(self, side: int) -> NDArray[np.float32]:
        """The same for a patch of `side` pixels, to those of the box."""
        matrix = self.matrix.copy()
        matrix[:, :2] *= patch_side("mouth") / side
        matrix[:, 2] -= self.inside.corner
        return matrix


class TeethPainter:
    """Holds the rows of teeth, and lights them with a network."""

    def __init__(self, weights: Path, running: Running | None = None) -> None:
        """Of a file of weights. Raises `WeightsError`."""
        running = running or Running()
        self.config = TeethConfig(**read_config(weights, PART))
        self.skull, self.upper, self.lower, self.raised = read_arrays(
            weights, PART, ("skull", "upper", "lower", "raised")
        )
        self.light = SwiftFunction(partial(_light, weights, running), running, name=PART)
        """(N, 8, h, w) of inputs (N, 27, P, P)"""

    @property
    def is_known(self) -> bool:
        """Whether it can probably go without torch."""
        return self.light.is_known

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
        bite = Bite.of(skull_pose(self.skull, points).to_skull(points))
        pose = skull_pose(bite.rest[list(SKULL)], points)
        bite, upper = own_teeth(bite, pose, crop, points, texture=self.upper, config=self.config)
        return OpenedTeeth(self, bite, Colours.of(crop, points), upper=upper, rate=rate)


def bundled_teeth(*, device: str = "cpu") -> TeethPainter:
    """With what ships. Raises `WeightsError`."""
    path = bundled_path("teeth")
    return TeethPainter(path, Running(device, shelf=WeightsShelf(path)))


def _light(weights: Path, running: Running) -> Function:
    from metaportrait_cli.networks.teeth_light import TeethNetwork, brightened  # noqa: PLC0415  torch
    from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

    # Stored at half precision; a CPU is slow with it.
    network = running.placed(load_network(TeethNetwork, weights, part=PART).float())
    return lambda seen: [brightened(seen, network(seen))]


class OpenedTeeth:
    """One source's teeth, ready to be drawn."""

    def __init__(
        self,
        painter: TeethPainter,
        bite: Bite,
        colours: Colours,
        *,
        upper: NDArray[np.float32] | None = None,
        rate: Fraction | None = None,
    ) -> None:
        self._painter = painter
        self.bite = bite
        self.colours = colours
        config = painter.config
        self._upper = Row(painter.upper if upper is None else upper, config)
        self._lower = Row(painter.lower, config)
        self._follow = 1 - math.exp(-1 / (STEADY_SECONDS * float(rate))) if rate else 1.0
        self.light: NDArray[np.float32] | None = None
        """Of the last frame, (8, h, w), if its mouth was open"""

    def draw(
        self,
        frames: NDArray[np.uint8],
        driven: NDArray[np.float32],
        gaps: Sequence[NDArray[np.float32]],
    ) -> None:
        """Draws into frames (T, S, S, 3), in place; arguments as of `OpenedRegions.repaint`."""
        drawn = [
            self.layers(t, points, gap, size=frames.shape[1])
            for t, (points, gap) in enumerate(zip(driven, gaps, strict=True))
        ]
        mouths = [mouth for mouth in drawn if mouth is not None]
        lights = iter(self._lights(frames, mouths))
        for mouth in drawn:
            if mouth is None:
                self.light = None
                continue
            light = next(lights)
            if self.light is not None:
                light = self.light + self._follow * (light - self.light)
            self.light = light
            self._blend(frames[mouth.frame], mouth, self._tempered(light))

    def _lights(self, frames: NDArray[np.uint8], mouths: Sequence[Drawn]) -> NDArray[np.float32]:
        """The light (N, 8, h, w) in which mouths are seen."""
        if not mouths:
            return np.zeros((0, layout.LIGHT_CHANNELS, 1, 1), np.float32)
        inputs = np.stack([self.inputs(frames[mouth.frame], mouth) for mouth in mouths])
        return self._painter.light(inputs)[0]

    def layers(
        self, frame: int, points: NDArray[np.float32], gap: NDArray[np.float32], *, size: int
    ) -> Drawn | None:
        """What is drawn between the lips of a driven face, without light."""
        pose = skull_pose(self.bite.rest[list(SKULL)], points)
        features = raised_features(self.bite, pose.to_skull(points))
        raised = float(self._painter.raised[:-1] @ features + self._painter.raised[-1])
        inside = look_inside(
            self.bite, pose, points, size=size, unknown=gap, raised=float(np.clip(raised, -3, 5))
        )
        if inside is None:
            return None
        return self.drawn(frame, inside, pose, points)

    def drawn(
        self, frame: int, inside: Inside, pose: SkullPose, points: NDArray[np.float32]
    ) -> Drawn:
        """The layers of an inside."""
        height, width = inside.opening.shape
        layers = np.empty((layout.CHANNELS, height, width), np.float32)
        near = np.minimum(inside.below_lip, inside.above_lip)
        layers[layout.OPENING] = inside.opening
        for part, row, places in (
            (layout.UPPER, self._upper, inside.upper),
            (layout.LOWER, self._lower, inside.lower),
        ):
            seen = row.drawn(places, pose.scale)
            grey = seen[..., :3].mean(-1, keepdims=True)
            seen[..., :3] = grey + self.colours.colourful * (seen[..., :3] - grey)
            layers[part] = seen.transpose(2, 0, 1)
        layers[layout.TONGUE] = tongue(inside).transpose(2, 0, 1)
        layers[layout.RIM] = np.exp(-near / 0.6)
        layers[layout.NEAR] = np.stack([inside.below_lip, inside.above_lip]) / 20
        layers[layout.GAP] = inside.gap / 30
        layers[layout.TOOTH] = self.colours.tooth[:, None, None]
        layers[layout.FLESH] = self.colours.flesh[:, None, None]
        return Drawn(frame, inside, layers, patch_to_picture(points, "mouth"))

    def inputs(self, frame: NDArray[np.uint8], mouth: Drawn) -> NDArray[np.float32]:
        """What the network sees, (27, P, P), of a frame (S, S, 3)."""
        side = self._painter.config.patch
        box = mouth.to_box(side)
        inputs = np.empty((layout.CHANNELS, side, side), np.float32)
        masked = mouth.layers[layout.OPENING.start : layout.GAP.stop].copy()
        masked[1:] *= masked[:1]
        for first in range(0, len(masked), 4):
            part = masked[first : first + 4].transpose(1, 2, 0)
            moved = cut_patch(np.ascontiguousarray(part), box, side)
            start = layout.OPENING.start + first
            inputs[start : start + part.shape[-1]] = moved.reshape(side, side, -1).transpose(
                2, 0, 1
            )
        opening = inputs[layout.OPENING]
        hidden = cv2.dilate(opening[0], np.ones((3, 3)))
        box[:, 2] += mouth.inside.corner
        picture = cut_patch(frame, box, side).transpose(2, 0, 1).astype(np.float32) / 255
        inputs[layout.SEEN] = picture * (1 - hidden)
        inputs[layout.PAINT] = picture * opening
        inputs[layout.TOOTH] = self.colours.tooth[:, None, None]
        inputs[layout.FLESH] = self.colours.flesh[:, None, None]
        return inputs

    def _tempered(self, light: NDArray[np.float32]) -> NDArray[np.float32]:
        """Light (8, h, w) with less colour on teeth, and none in a grey photo."""
        tempered = light.copy()
        for part, share in ((slice(0, 3), UPPER_TINT), (slice(5, 8), 1.0)):
            grey = light[part].mean(0)
            tempered[part] = grey + share * self.colours.colourful * (light[part] - grey)
        tempered[:3] *= np.where(tempered[:3] < 0, UPPER_SHADE, 1)
        most = min(math.log(WHITEST / float(self.colours.tooth @ LUMA)), MOST_LIGHT)
        tempered[:3] = np.minimum(tempered[:3], most)
        tempered[5:8] += self.colours.colourful * BEHIND_TINT[:, None, None]
        # Tongues lie in the shade of lips and teeth.
        tempered[5:8] -= np.maximum(tempered[5:8].mean(0) - MOST_BEHIND, 0)
        return tempered

    def _blend(self, frame: NDArray[np.uint8], mouth: Drawn, light: NDArray[np.float32]) -> None:
        inside = mouth.inside
        height, width = inside.opening.shape
        matrix = mouth.to_box(light.shape[-1]).astype(np.float64)
        # cv2 counts from the first pixel's centre.
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
        planes = np.ascontiguousarray(light.transpose(1, 2, 0))
        moved = [
            cv2.warpAffine(
                np.ascontiguousarray(planes[..., part]),
                matrix,
                (width, height),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for part in (slice(0, 4), slice(4, 8))
        ]
        maps = np.concatenate(moved, axis=-1).transpose(2, 0, 1)
        colour = lit(mouth.layers[None], maps[None], exp=np.exp)[0].clip(0, 1) ** (1 / GAMMA)
        drawn = 255 * colour.transpose(1, 2, 0)
        rows, columns = inside.box
        region = frame[rows, columns]
        share = inside.opening[..., None]
        region[:] = np.rint(region * (1 - share) + drawn * share).astype(np.uint8)
