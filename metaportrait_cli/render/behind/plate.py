"""The background behind the person, made once a source, and still ever after.

A turning head uncovers a strip beside it. There the background goes on in patches of the rest, as
soft as that is, and in its light. Deep behind the person, where nothing is uncovered, colours
merely spread.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.render.behind.patches import Picture, patched

LEAST = 0.02
"""Share of the person from which a pixel is not background"""
DEPTH = 0.5
"""How far behind the person, in face widths, the background is filled by patches"""
GRAIN, BLURS = 0.006, (0.008, 0.016, 0.032, 0.064)
"""In face widths: what no background is sharper than, and blurs that it may have"""
UNSEEN, MOSTLY = 3.0, 95
"""A background has a blur if another one as strong changes so many per cent of it by no more grey
levels."""
LEAST_COMMON = 0.05
"""Of a picture, that two must show of the background to be compared"""
SAME_PLACE, SAME_LIGHT = 8.0, 24.0
"""Grey levels by which two pictures of one background differ at most, from noise and from light"""


def background(
    picture: NDArray[np.uint8], alpha: NDArray[np.float32], *, width: float
) -> NDArray[np.uint8]:
    """The picture (H, W, 3) without the person, who covers `alpha` (H, W) of it.

    `width` is the face's, in pixels.
    """
    hole = _hole(alpha, width)
    if hole.all():
        return picture
    smooth = spread(picture.astype(np.float32), 1 - hole.astype(np.float32))
    deep = cv2.distanceTransform(hole, cv2.DIST_L2, 3)
    filled = patched(picture, smooth, hole, deep < DEPTH * width)
    filled = _as_soft(filled, picture, hole, width)
    filled = _in_its_light(filled, picture, hole)
    share = smoothstep((deep / width - 0.6 * DEPTH) / (0.4 * DEPTH))[..., None]
    filled = filled + share * (smooth - filled)
    # The hole is wider than the person: its edge fades into the true background.
    soft = np.maximum(cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1.0), hole)[..., None]
    return np.clip(np.rint(picture + soft * (filled - picture)), 0, 255).astype(np.uint8)


def _as_soft(
    filled: Picture, picture: NDArray[np.uint8], hole: NDArray[np.uint8], width: float
) -> Picture:
    """What fills the hole as blurred as the picture (H, W, 3) around it: borders of patches would
    be the only sharp ones of a background out of focus."""
    around = cv2.distanceTransform(1 - hole, cv2.DIST_L2, 3) < DEPTH * width
    around &= hole == 0
    if not around.any():
        return filled
    known = np.where(hole[..., None] > 0, filled, picture).astype(np.float32)
    calm = cv2.GaussianBlur(known, (0, 0), GRAIN * width)
    soft = filled
    for blur in BLURS:
        blurred = cv2.GaussianBlur(known, (0, 0), blur * width)
        lost = np.abs(blurred - calm).mean(2)[around]
        if np.percentile(lost, MOSTLY) > UNSEEN:
            break
        soft = blurred
    return soft


def _in_its_light(filled: Picture, picture: NDArray[np.uint8], hole: NDArray[np.uint8]) -> Picture:
    """What fills the hole a little lighter or darker, as the picture (H, W, 3) is at its edge."""
    edge = cv2.dilate(hole, np.ones((5, 5), np.uint8)) - hole
    apart = picture - filled
    known = edge * np.float32(np.abs(apart).max(2) < SAME_LIGHT)
    return filled + spread(apart, known) if known.any() else filled


def revealed(
    picture: NDArray[np.uint8],
    alpha: NDArray[np.float32],
    others: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    *,
    width: float,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The picture (H, W, 3) with the background that other pictures show where its person stands,
    and what of `alpha` (H, W) is left of the person.

    Each of the others comes with what its own person covers. It counts where its background is the
    same and stands still, told by what both show of it; its light may differ a little.
    """
    shown, left = picture.copy(), alpha.copy()
    hole = _hole(alpha, width) > 0
    missing = hole.copy()
    for other, covered in others:
        free = _hole(covered, width) == 0
        both = free & ~hole
        new = free & missing
        if both.sum() < LEAST_COMMON * both.size or not new.any():
            continue
        apart = picture[both].astype(np.int16) - other[both]
        light = np.median(apart, axis=0)
        if np.abs(apart - light).max(-1).mean() > SAME_PLACE or np.abs(light).max() > SAME_LIGHT:
            continue
        shown[new] = np.clip(other[new] + light, 0, 255)
        left[new], missing[new] = 0, False
    return shown, left


def plain_background(
    picture: NDArray[np.uint8], alpha: NDArray[np.float32], *, width: float
) -> NDArray[np.uint8]:
    """As `background`, but colours merely spread: at once, and without detail."""
    known = 1 - _hole(alpha, width).astype(np.float32)
    return np.clip(np.rint(spread(picture.astype(np.float32), known)), 0, 255).astype(np.uint8)


def _hole(alpha: NDArray[np.float32], width: float) -> NDArray[np.uint8]:
    reach = 2 * max(2, round(0.02 * width)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return cv2.dilate(np.uint8(alpha > LEAST), disc)


def spread(values: Picture, weight: NDArray[np.float32]) -> Picture:
    """Fills pictures (H, W, C) where `weight` (H, W) is 0, smoothly from where it is 1."""
    levels = [(values * weight[..., None], weight)]
    while min(levels[-1][1].shape) > 2:
        held, share = levels[-1]
        size = ((share.shape[1] + 1) // 2, (share.shape[0] + 1) // 2)
        held = cv2.resize(held, size, interpolation=cv2.INTER_AREA)
        share = cv2.resize(share, size, interpolation=cv2.INTER_AREA)
        levels.append((held.reshape(size[1], size[0], -1), share))
    held, share = levels.pop()
    filled = np.asarray(held / np.maximum(share, 1e-6)[..., None], np.float32)
    while levels:
        held, share = levels.pop()
        up = cv2.resize(filled, share.shape[::-1], interpolation=cv2.INTER_LINEAR)
        up = up.reshape(*share.shape, -1)
        # A cell that was a quarter known says enough.
        enough = np.minimum(share if not levels else 4 * share, 1)[..., None]
        filled = held / np.maximum(share, 1e-6)[..., None] * enough + (1 - enough) * up
    return filled.astype(np.float32)
