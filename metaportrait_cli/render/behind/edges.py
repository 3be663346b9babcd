"""Edges of what stands before something else, of cells made smooth at full size.

Sheets are laid out on a grid; what of them begins before what is seen cell by cell, in stairs.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

FOLD = 3.0
"""Pixels of the source a pixel, from which on two neighbours lie on different parts of the sheet"""
ALONE = 2.0
"""How many times as far the neighbours of these are from each other, less: else the sheet is not
folded, but seen from so far aside"""
SOFT_FOLD = 0.6
"""How soft such an edge is, in cells of the layout"""
EVEN, EVENED = 1.2, 2
"""Where the head ends, turned so far, its outline is blurred over so many cells, made sharp again,
and is so up to so many cells from there"""
RIM, RIM_STEEPNESS = 0.9, 2.0
"""An edge's stairs are smoothed over so many cells, then made so much sharper"""
OPAQUE = 255

Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows and columns"""
Cells = NDArray[np.uint8]
"""0 or 1 each, (G, G)"""


def edges(
    place: NDArray[np.float32], covered: NDArray[np.bool_], *, cell: float
) -> tuple[Cells, Cells]:
    """Where the sheet of places (G, G, 2), `cell` pixels a cell, is folded: one part of it begins
    before another; and where it is that or merely seen from far aside. Both where `covered`."""
    folded, steep = np.zeros((2, *covered.shape), np.uint8)
    for axis, last in ((0, (-1,)), (1, (slice(None), -1))):
        x, y = cv2.split(cv2.absdiff(place, np.roll(place, -1, axis)))
        step = cv2.max(x, y) * (covered & np.roll(covered, -1, axis))
        step[last] = 0
        far = step > FOLD * cell
        beside = cv2.max(np.roll(step, 1, axis), np.roll(step, -1, axis))
        alone = far & (step > ALONE * beside)
        folded |= alone | np.roll(alone, 1, axis)
        steep |= far | np.roll(far, 1, axis)
    return folded, steep


def pixels(cells: Cells, cell: float) -> Pixels:
    """Those of some cells (G, G)."""
    size = round(cells.shape[1] * cell), round(cells.shape[0] * cell)
    found = cv2.findNonZero(cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST))
    places = np.empty((0, 2), np.intp) if found is None else found.reshape(-1, 2).astype(np.intp)
    return places[:, 1], places[:, 0]


def straighten(person: Picture, cells: Cells, *, cell: float) -> None:
    """Straightens the outline of a person (H, W, 4) around some cells of `cell` pixels."""
    near = cv2.dilate(cells, np.ones((2 * EVENED + 1,) * 2, np.uint8))
    left, top, wide, high = cv2.boundingRect(near)
    if not wide:
        return
    box = (
        slice(round(top * cell), round((top + high) * cell)),
        slice(round(left * cell), round((left + wide) * cell)),
    )
    part = person[box]
    blurred = cv2.GaussianBlur(part, (0, 0), EVEN * cell)
    near = near[top : top + high, left : left + wide]
    near = cv2.resize(near, part.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    near[blurred[..., 3] == OPAQUE] = 0
    # A face that is merely thin is no outline: its far eye would be blurred.
    ends = cv2.erode(part[..., 3], np.ones((2 * round(EVENED * cell) + 1,) * 2, np.uint8))
    near[ends > OPAQUE // 2] = 0
    rows, columns = np.nonzero(near)
    blurred = blurred[rows, columns]
    part[rows, columns] = np.rint(blurred * _EVENING[blurred[:, 3]][:, None])


def soften(frame: Picture, at: Pixels, sigma: float) -> None:
    """Blurs a frame (H, W, 3) at some of its pixels."""
    box = tuple(slice(int(each.min()), int(each.max()) + 1) for each in at)
    blurred = cv2.GaussianBlur(frame[box], (0, 0), sigma)
    rows, columns = (each - part.start for each, part in zip(at, box, strict=True))
    frame[at] = blurred[rows, columns]


def closed(values: NDArray[np.float32], covered: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values (G, G, …), at uncovered cells their neighbours': enlarging mixes them in."""
    known = np.float32(covered)
    held = cv2.multiply(values, known if values.ndim == 2 else cv2.merge([known] * 2))
    held, share = (cv2.blur(x, (3, 3), borderType=cv2.BORDER_REPLICATE) for x in (held, known))
    beside = ~covered & (share > 0)
    result = values.copy()
    result[beside] = (held[beside].T / share[beside]).T
    return result


def grown(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With their neighbours, (G, G)."""
    return cv2.dilate(np.uint8(cells), np.ones((3, 3), np.uint8)) > 0


def rim(covered: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    """How much (H, W), in [0, 255], covered cells (G, G) cover, without their stairs; `size` is
    (W, H)."""
    soft = cv2.GaussianBlur(np.uint8(255 * covered), (0, 0), RIM, borderType=cv2.BORDER_REPLICATE)
    soft = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.LUT(soft, _STEEPER), np.uint8)


_STEEPER = np.rint(255 * np.clip(0.5 + RIM_STEEPNESS * (np.arange(256) / 255 - 0.5), 0, 1)).astype(
    np.uint8
)
_EVENING = _STEEPER / np.maximum(np.arange(256), 1).astype(np.float32)
"""By what premultiplied colours are multiplied with that"""
