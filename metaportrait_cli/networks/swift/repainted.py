"""What the networks of regions do with single pixels once their convolutions are done, in numpy.

`networks/regions.py` and `networks/mouth.py` say the same in torch, which trains them. There it is
a hundred small steps; here most are tables and OpenCV's, and light is mixed only where a mouth is
open. One patch at a time: P is its side, C are its channels, planes first.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.networks import teeth
from metaportrait_cli.networks.teeth import (
    BEHIND_HUE,
    BEHIND_TINT,
    BLACK,
    BRIGHT,
    BRIGHTEST,
    DARK,
    DARKEST,
    FIRST,
    GAMMA,
    MOST_BEHIND,
    PAINT_BEHIND,
    PALEST,
    RIM_SHADE,
    TEETH_TINT,
)

Planes = NDArray[np.uint8]
Floats = NDArray[np.float32]

OWN, OUTLINE, OPENING, UNKNOWN, OWN_OPENING = slice(3, 6), 6, 7, 8, 10
OF_FRAME, OF_SOURCE = (0, 1, 2, 6, 7, 8), (3, 4, 5, 9, 10)
"""Channels that each frame brings, and those that stay the same for a source"""
# Shares of a patch's side: by which painting may go beyond what is unknown, and fine painting
# beyond the inside, then fades out; by which it may go into what is known from the lips on; and
# what is too coarse to be the grain of skin.
REACH, FADE, EDGE, COARSE = 1 / 32, 1 / 32, 1 / 64, 1 / 32
# At first the mask is half open: a closed one would keep the change from being learnt.
MASK_BIAS = 0.0
# Teeth that a source shows stay as light as they are while a mouth is open: over this range of its
# opening's height, in shares of the source's own, where that is higher than a slit (shares of the
# side). Between lips that close they go under paint.
STAYING, SLIT = (0.7, 1.2), (3 / 128, 7 / 128)
# Below this mean difference between the channels of the source's own patch, painting loses colour
# with it: an old photo stays grey.
COLOURFUL = 0.03
# A patch changes nothing at its border: share of the side over which it may more and more.
BORDER_SHARE = 0.12

_SHOWN = (np.arange(256) / 255).astype(np.float32)
_CLAMPED = _SHOWN.clip(DARK, 1)
_LINEAR = _CLAMPED**GAMMA
_DECODED = (BRIGHT * _SHOWN.clip(BLACK) ** GAMMA).astype(np.float32)


def painted(head: Floats, patch: Planes, *, keep_shown: bool) -> Floats:
    """The change (P, P, 3) of a patch (C, P, P) that the head (16, P / 2, P / 2) gives; see
    `RegionNetwork.painted`."""
    size, half = patch.shape[-1], head.shape[-1]
    phases = head.reshape(4, 2, 2, half, half).transpose(3, 1, 4, 2, 0)
    change = np.ascontiguousarray(phases[..., :3]).reshape(size, size, 3)
    mask = np.ascontiguousarray(phases[..., 3]).reshape(size, size)
    mask = cv2.exp(-mask - MASK_BIAS)
    mask = _window(size) / (1 + mask)
    inside = patch[OUTLINE]
    if keep_shown:
        inside = patch[OPENING]
        # Less by its edge: of lips that are closed, what is left between them is a slit.
        known = cv2.erode(inside, _square(_pixels(size, EDGE)))
        mask *= 1 - _SHOWN[known] * (1 - _beyond(patch[UNKNOWN]))
    share = colourful(patch)
    change = cv2.transform(change, share * np.eye(3) + (1 - share) / 3)
    change = cv2.multiply(change, cv2.merge([mask] * 3))
    staying = teeth_stay(patch) if keep_shown else 0.0
    if staying:
        # Lightened, they would be a white band.
        shown = np.float32(staying) * _SHOWN[inside] * (1 - _SHOWN[patch[UNKNOWN]])
        change -= cv2.multiply(cv2.max(change, 0.0), cv2.merge([shown] * 3))
    small = size // _pixels(size, COARSE)
    coarse = cv2.resize(change, (small, small), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    fine = _beyond(inside)
    return cv2.blendLinear(change, coarse, fine, 1 - fine)


def light_of(found: Floats, patch: Planes) -> Floats:
    """The light (10, h, w) on a mouth's patch (27, P, P), as its network's second head says it; see
    `MouthNetwork.seen`."""
    grey = (found[:3] + np.array(FIRST, np.float32)[:, None, None]).clip(DARKEST, BRIGHTEST)
    share = colourful(patch)
    hue = np.array(BEHIND_HUE, np.float32)[:, None, None]
    light = np.empty_like(found)
    tint = TEETH_TINT * share * _coloured(found[4:7])
    light[teeth.ON_UPPER] = grey[:1] + tint
    light[teeth.ON_LOWER] = grey[1:2] + tint
    light[teeth.SEEN] = 1 / (1 + np.exp(-found[3:4] - 1))
    behind = share * (BEHIND_TINT * _coloured(found[7:]) + hue)
    light[teeth.ON_BEHIND] = np.minimum(grey[2:], MOST_BEHIND) + behind
    return light


def below_teeth(change: Floats, patch: Planes, light: Floats) -> Floats:
    """A painted change (P, P, 3) with what lies behind the teeth of a mouth's patch (27, P, P)
    under `light` (10, h, w); in place. See `networks.mouth.below_teeth`."""
    size = patch.shape[-1]
    drawn = patch[teeth.OPENING.start]
    x, y, width, height = cv2.boundingRect(drawn)
    if not width:
        return change
    box = (slice(y, y + height), slice(x, x + width))
    opening = _SHOWN[drawn[box]][..., None]
    on_behind = cv2.resize(
        np.ascontiguousarray(light[teeth.ON_BEHIND].transpose(1, 2, 0)),
        (size, size),
        interpolation=cv2.INTER_LINEAR,
    )
    behind = cv2.LUT(_cut(patch[teeth.BEHIND], box), _DECODED)
    behind *= np.exp(on_behind[box])
    behind *= 1 - RIM_SHADE * _SHOWN[patch[teeth.RIM.start][box]][..., None]
    warped = _cut(patch[:3], box)
    mixed = cv2.LUT(warped, _LINEAR) * (1 - opening) + behind
    shown = mixed.clip(DARK**GAMMA, 1) ** np.float32(1 / GAMMA)
    part = change[box]
    part *= 1 - (1 - PAINT_BEHIND) * opening
    lighter = part.mean(-1, keepdims=True).clip(BLACK) / PALEST
    part *= 1 + opening * (np.tanh(lighter) / lighter - 1)
    part += shown - cv2.LUT(warped, _CLAMPED)
    return change


def colourful(patch: Planes) -> float:
    """Of a patch (C, P, P): 0 where the source's own one is grey, 1 mostly."""
    red, green, blue = patch[OWN]
    most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return min(1.0, cv2.mean(cv2.subtract(most, least))[0] / (255 * COLOURFUL))


def teeth_stay(patch: Planes) -> float:
    """How far teeth that the source of a mouth's patch (C, P, P) shows are seen, in [0, 1]."""
    driven, own = (
        float(cv2.reduce(patch[part], 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).max())
        for part in (OPENING, OWN_OPENING)
    )
    side = 255 * patch.shape[-1]
    return _ramp(own / side, SLIT) * _ramp(driven / max(own, 1.0), STAYING)


def _ramp(value: float, ends: tuple[float, float]) -> float:
    x = min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _coloured(found: Floats) -> Floats:
    """Three channels (3, h, w) in (-1, 1) that have a hue and no brightness."""
    return np.tanh(found - found.mean(0))


def _beyond(mask: Planes) -> Floats:
    """A mask (P, P) that reaches farther by `REACH`, then fades out, in [0, 1]."""
    size = len(mask)
    grown = cv2.dilate(mask, _square(_pixels(size, REACH)))
    side = 2 * _pixels(size, FADE) + 1
    total = cv2.boxFilter(
        grown, cv2.CV_32F, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    return total * _shares(size, side)


def _cut(planes: Planes, box: tuple[slice, slice]) -> NDArray[np.uint8]:
    """Three planes (3, P, P) within a box, as a picture (h, w, 3)."""
    return cv2.merge([np.ascontiguousarray(plane[box]) for plane in planes])


def _pixels(size: int, share: float) -> int:
    return round(share * size)


@lru_cache
def _square(by: int) -> NDArray[np.uint8]:
    """What a mask is grown with, to reach so many pixels farther."""
    return np.ones((2 * by + 1, 2 * by + 1), np.uint8)


@lru_cache
def _shares(size: int, side: int) -> Floats:
    """1 / 255 of each of the pixels (size, size) in a square around each pixel."""
    ones = np.full((size, size), 255, np.float32)
    return 1 / cv2.boxFilter(
        ones, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT
    )


@lru_cache
def _window(size: int) -> Floats:
    """(size, size): 0 at the border, 1 inside, smooth between."""
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size
    ramp = (np.minimum(centres, 1 - centres) / BORDER_SHARE).clip(0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return ramp[:, None] * ramp
