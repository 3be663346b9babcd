"""What a source tells of its teeth: their colours, and the upper ones where it shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.dental_arch import (
    LOWER_LIP,
    NOSE_BASE,
    PUPILS,
    UPPER_LIP,
    Bite,
    SkullPose,
)
from metaportrait_cli.face.landmark_image import filled_polygon
from metaportrait_cli.networks.teeth import GAMMA, TeethConfig

LUMA = np.array([0.2126, 0.7152, 0.0722])
# Lids may hide the whites of the eyes.
EYES_TO_TEETH, LEAST_OF_SKIN = 1.3, 0.7
# Height of an opening (mm) below which its light is the lips', and how far off them it counts.
LEAST_SEEN, LIPS_SHARE = 3.0, 0.3
_SKIN = (205, 425, 50, 280, 187, 411, 200, 199)
_LIPS = (0, 17, 37, 267, 84, 314)
# Logarithms of red and blue against green: enamel is nearly neutral and warm, whatever the skin.
TOOTH_RED, TOOTH_BLUE = (0.03, 0.3), (-0.35, -0.05)
LEAST_SHOWN = 4.0
"""Height of an opening, in mm, below which its teeth tell nothing"""
SIZES = (0.88, 0.96, 1.04)
# How far they may lie from where teeth are on average, in mm; people differ by 2.2 in height.
SIDEWAYS, UPWARDS = 2.5, 4.0
LEAST_LIKENESS = 0.42
MOST_TURNED = 0.4  # radians
DETAIL = 3.0  # mm; what is coarser is light
DIFFERS = (-0.7, 0.3)
"""How far one's own teeth may be darker or lighter than the mean, as a logarithm"""
_CLOSE = 0.02  # of linear light: the noise of dark pixels
# Lenses and video soften what they see, by so many millimetres. The edges of eyes in sharp pictures
# are as soft as the second, or that many pixels; by a share of what others have more, their teeth
# are softer, too.
SOFTNESS, SHARP_EYES, SHARP_PIXELS, SOFTER, SOFTEST = 0.16, 0.7, 1.1, 0.45, 1.5
_EYES_WIDTH, _EYES_HEIGHT = 0.7, 0.42
"""How far around an eye's middle its edges are looked for, in widths of it"""
SIDE_FADE = 10.0
"""Millimetres over which a row ends at its sides"""


class Row:
    """The texture of one row of teeth, ready at the scales that pictures ask for."""

    def __init__(
        self, texture: NDArray[np.float32], config: TeethConfig, *, softness: float = SOFTNESS
    ) -> None:
        """`softness` (mm) is that of the picture it is drawn in."""
        self._texture = texture
        self._config = config
        self._softness = softness
        self._at: dict[float, NDArray[np.float32]] = {}

    def drawn(self, places: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
        """(H, W, 4) at places (H, W, 2) on the arch, for a picture of `scale` pixels a mm."""
        config = self._config
        coarser = max(1.0, round(2 * config.pixels / scale) / 2)
        if coarser not in self._at:
            soft = cv2.GaussianBlur(self._texture, (0, 0), self._softness * config.pixels)
            self._at[coarser] = cv2.resize(
                soft, None, fx=1 / coarser, fy=1 / coarser, interpolation=cv2.INTER_AREA
            )
        pixels = config.pixels / coarser
        x = (places[..., 0] + config.reach) * pixels - 0.5
        y = (places[..., 1] + config.gum) * pixels - 0.5
        found = cv2.remap(
            self._at[coarser], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        # Beyond the texture there is the dark of the cheeks.
        shown = smoothstep((config.reach - np.abs(places[..., 0])) / SIDE_FADE)
        return found * np.where(places[..., 1] < config.beyond, shown, 0)[..., None]


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
        red = np.clip(0.2 + 0.3 * (red - 0.76), *TOOTH_RED)
        blue = np.clip(-0.15 + 0.35 * (blue + 0.32), *TOOTH_BLUE)
        hue = np.array([red, 0.0, blue])
        hue = np.exp(hue * colourful)
        by_skin = 0.8 * math.exp(-0.05 + 0.62 * math.log(bright))
        # Hardly whiter than the eyes: those of paintings are dark.
        by_eyes = max(EYES_TO_TEETH * _eye_white(crop, points), LEAST_OF_SKIN * by_skin)
        # What is lighter between the lips is a tooth.
        told = max(min(by_skin, by_eyes), _light_inside(crop, points))
        tooth = hue / (hue @ LUMA) * min(0.85, told)
        flesh = np.sqrt(lips / (lips @ LUMA) * np.array([1.9, 0.75, 0.75]))
        flesh = 1 + (flesh - 1) * colourful
        return cls(tooth, flesh / (flesh @ LUMA) * bright, colourful)


def _eye_white(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> float:
    """Linear brightness of the light parts of a face's eyes."""
    rings = (topology.ring(name) for name in ("left_eye", "right_eye"))
    inside = [_inside(crop, points[ring, :2]) for ring in rings]
    found = [np.percentile(light, 90) for light in inside if len(light)]
    return float(np.mean(found)) if found else 1.0


def _light_inside(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> float:
    """Linear brightness of the light part of what a mouth shows; 0 of one that is nearly shut."""
    if opening_height(points) < LEAST_SEEN:
        return 0.0
    upper, lower = np.moveaxis(points[np.array(topology.INNER_LIPS), :2], 1, 0)
    # Off the lips, whose light lies beside the landmarks.
    middle = (upper + lower) / 2
    outline = np.concatenate([upper, lower[::-1]])
    inner = np.concatenate([middle, middle[::-1]]) * LIPS_SHARE + outline * (1 - LIPS_SHARE)
    light = _inside(crop, inner.astype(np.float32))
    return float(np.percentile(light, 80)) if len(light) else 0.0


def softness_of(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> float:
    """By how much (mm) teeth in a picture (S, S, 3) of a face (478, 3) would be blurred."""
    found = [_edge_blur(crop, points[topology.ring(eye), :2]) for eye in ("left_eye", "right_eye")]
    pixels = min((blur for blur in found if blur is not None), default=0.0)
    pixel = 1 / millimetre(points)
    sharp = max(SHARP_EYES, SHARP_PIXELS * pixel)
    more = max(0.0, (pixels * pixel) ** 2 - sharp**2) ** 0.5
    return min(math.hypot(SOFTNESS, SOFTER * more), SOFTEST)


def _edge_blur(crop: NDArray[np.uint8], ring: NDArray[np.float32]) -> float | None:
    """How blurred, in pixels, the sharpest edges of an eye (N, 2) are; `None` if it is no picture's
    part: an edge of contrast c that is blurred by s has a gradient of c / (s √(2π))."""
    reach = np.ptp(ring[:, 0]) * np.array([_EYES_WIDTH, _EYES_HEIGHT])
    low, high = np.clip([ring.mean(0) - reach, ring.mean(0) + reach], 0, len(crop)).astype(int)
    if (high - low).min() < 5:
        return None
    light = crop[low[1] : high[1], low[0] : high[0]] @ LUMA
    down, across = np.gradient(light)
    steepest = float(np.percentile(np.hypot(down, across), 99))
    contrast = float(np.subtract(*np.percentile(light, (97, 3))))
    return contrast / (max(steepest, 0.5) * math.sqrt(2 * math.pi))


def millimetre(points: NDArray[np.float32]) -> float:
    """Pixels to one of a face (478, 3), by the distance of its pupils."""
    pupils = points[topology.IRISES[0][0]] - points[topology.IRISES[1][0]]
    return max(float(np.linalg.norm(pupils)), 1e-6) / PUPILS


def opening_height(points: NDArray[np.float32]) -> float:
    """Of the mouth of a face (478, 3), in mm."""
    upper, lower = np.moveaxis(points[np.array(topology.INNER_LIPS), :2], 1, 0)
    return float(np.linalg.norm(lower - upper, axis=-1).max()) / millimetre(points)


def _inside(crop: NDArray[np.uint8], outline: NDArray[np.float32]) -> NDArray[np.floating]:
    """Linear brightness (N,) of the pixels of a picture (S, S, 3) within an outline (K, 2)."""
    x0, y0 = np.clip(np.floor(outline.min(0)).astype(int), 0, len(crop) - 2).tolist()
    x1, y1 = np.clip(np.ceil(outline.max(0)).astype(int), 1, len(crop)).tolist()
    side = max(x1 - x0, y1 - y0, 1)
    mask = filled_polygon(outline - (x0, y0), side=side, size=side)
    part = crop[y0:y1, x0:x1]
    return (part[mask[: part.shape[0], : part.shape[1]] > 200] / 255.0) ** GAMMA @ LUMA


@dataclass(frozen=True)
class ShownTeeth:
    """Upper teeth that a picture shows: in linear light along their arch (H, W, 3), where they are
    known (H, W), and how sure it is that they are teeth, in [0, 1]."""

    bite: Bite
    light: NDArray[np.float32]
    known: NDArray[np.float32]
    likeness: float


@dataclass(frozen=True)
class TeethOfPerson:
    """Upper teeth of somebody of whom there are several pictures."""

    texture: NDArray[np.float32]
    """(H, W, 4)"""
    below_nose: NDArray[np.floating]
    """(3,) from the base of the nose to the middle of their edges, in mm of the skull frame"""
    size: float

    def of(self, bite: Bite) -> Bite:
        """Where they are in another picture of the person."""
        middle = bite.rest[NOSE_BASE] + self.below_nose
        return replace(bite, upper=replace(bite.upper, middle=middle, size=self.size))


def own_teeth(
    bite: Bite,
    pose: SkullPose,
    crop: NDArray[np.uint8],
    points: NDArray[np.float32],
    *,
    texture: NDArray[np.float32],
    config: TeethConfig,
) -> ShownTeeth | None:
    """What a source crop (S, S, 3) with its face points (478, 3) shows of its upper row, which may
    lie beside where `bite` has it; `None` where it shows no teeth, or none that look like any.

    `texture` (H, W, 4) is how teeth look.
    """
    skull = pose.to_skull(points)
    shown = skull[list(LOWER_LIP[1:-1]), 1] - skull[list(UPPER_LIP[1:-1]), 1]
    if float(shown.max()) < LEAST_SHOWN or pose.rotation[2, 2] < np.cos(MOST_TURNED):
        return None
    pixels = config.pixels
    whole = np.ones(texture.shape[:2], np.float32)
    wanted, _ = detail(brightness(texture[..., :3]), whole, pixels)
    reach = (round(SIDEWAYS * pixels), round(UPWARDS * pixels))
    opening = opening_of(crop, points)
    best: tuple[float, Bite] = (LEAST_LIKENESS, bite)
    for size in SIZES:
        there = replace(bite, upper=replace(bite.upper, size=size))
        seen, mask = laid_out(there.upper.points(*grid(config)), pose, crop, opening)
        likeness, x, y = matched(wanted, *detail(brightness(seen), mask, pixels), reach=reach)
        if likeness > best[0]:
            move = np.array([-x, -y, 0]) / pixels * size
            upper = replace(there.upper, middle=there.upper.middle + move)
            best = likeness, replace(there, upper=upper)
    likeness, placed = best
    if placed is bite:
        return None
    light, known = laid_out(placed.upper.points(*grid(config)), pose, crop, opening)
    return ShownTeeth(placed, light, known, likeness)


def teeth_of_person(
    shown: Sequence[ShownTeeth], texture: NDArray[np.float32], config: TeethConfig
) -> TeethOfPerson | None:
    """The row that several pictures show together: where they agree, in the looks of the surest."""
    if not shown:
        return None
    order = sorted(shown, key=lambda one: one.likeness)
    for one in order:
        texture = blended(texture, one, config)
    places = [one.bite.upper.middle - one.bite.rest[NOSE_BASE] for one in order]
    sizes = [one.bite.upper.size for one in order]
    return TeethOfPerson(texture, np.median(places, axis=0), float(np.median(sizes)))


def grid(config: TeethConfig) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Places on an arch, (1, W) and (H, 1), of a texture's pixels."""
    height, width, _ = config.texture
    u = (np.arange(width) + 0.5) / config.pixels - config.reach
    v = (np.arange(height) + 0.5) / config.pixels - config.gum
    return u[None], v[:, None]


def opening_of(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What the lips of a face (478, 3) leave open of a crop (S, S, 3): (S, S)."""
    opening = np.zeros(crop.shape[:2], np.uint8)
    ring = points[topology.ring("lips_inner"), :2]
    cv2.fillPoly(opening, [np.rint((ring - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return opening


def matched(
    wanted: NDArray[np.float32],
    found: NDArray[np.float32],
    known: NDArray[np.float32],
    *,
    reach: tuple[int, int],
) -> tuple[float, int, int]:
    """How like the wanted detail (H, W) the found one is at its best place, in [-1, 1]; and the
    pixels x, y, at most `reach`, that bring it there."""
    padded = cv2.copyMakeBorder(wanted, *[reach[1]] * 2, *[reach[0]] * 2, cv2.BORDER_REPLICATE)
    match = cv2.matchTemplate(padded, found, cv2.TM_CCORR)
    size = cv2.matchTemplate(padded**2, known, cv2.TM_CCORR)
    match = match / np.sqrt(np.maximum(size * float((found**2).sum()), 1e-6))
    _, likeness, _, (x, y) = cv2.minMaxLoc(match)
    return float(likeness), x - reach[0], y - reach[1]


def laid_out(
    places: NDArray[np.floating],
    pose: SkullPose,
    crop: NDArray[np.uint8],
    opening: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The crop in linear light (H, W, 3), and its opening (H, W), at places (H, W, 3) of the skull
    frame."""
    picture = (pose.scale * places @ pose.rotation.T + pose.shift)[..., :2].astype(np.float32)
    x, y = picture[..., 0] - 0.5, picture[..., 1] - 0.5
    seen = cv2.remap(crop, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.remap(opening, x, y, cv2.INTER_LINEAR)
    return (seen.astype(np.float32) / 255) ** GAMMA, mask.astype(np.float32) / 255


def brightness(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Its logarithm (H, W), of linear light (H, W, 3)."""
    return np.log(_CLOSE + colour.mean(-1))


def detail(
    light: NDArray[np.float32], mask: NDArray[np.float32], pixels: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Brightness (H, W) without what is coarse, and where a mask says that it is known."""
    known = (mask > 0.7).astype(np.float32)
    coarse = _blur(light * known, pixels) / (_blur(known, pixels) + 1e-3)
    return (np.clip(light - coarse, -1, 1) * known).astype(np.float32), known


def _blur(values: NDArray[np.float32], pixels: int) -> NDArray[np.float32]:
    return cv2.GaussianBlur(values, (0, 0), DETAIL * pixels)


def blended(
    texture: NDArray[np.float32], shown: ShownTeeth, config: TeethConfig
) -> NDArray[np.float32]:
    """The texture with the source's own detail where it is seen; light stays the learnt one's."""
    seen, mask, pixels = shown.light, shown.known, config.pixels
    cover = texture[..., 3]
    # Lips' edges are soft, and their landmarks a pixel off.
    known = cv2.erode((mask > 0.7).astype(np.float32), np.ones((3 * pixels, 3 * pixels)))
    weight = cv2.GaussianBlur(known, (0, 0), 0.4 * pixels) * cover
    own = np.log(_CLOSE + seen)
    learnt = np.log(_CLOSE + texture[..., :3])
    share = (known * (cover > 0.9))[..., None]
    total = _blur(share[..., 0], pixels)[..., None] + 1e-3
    light = (_blur(learnt * share, pixels) - _blur(own * share, pixels)) / total
    differs = np.clip(own + light - learnt, *DIFFERS)
    result = texture.copy()
    result[..., :3] *= 1 + weight[..., None] * (np.exp(differs) - 1)
    return result
