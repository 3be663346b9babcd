"""A smile's creases, from the nose down beside the mouth, go with the smile.

They are finer than the map of the skin: it tells that light comes back where a crease was, and the
line itself would stay. So where a source's crease is is found once, at the picture's full size, and
skin as it is beside the line covers it as far as the map says that the crease opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.topology import EYE_CORNERS
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.render.shading.skin import Map
from metaportrait_cli.render.shading.tint import DARKEST, LUMA

AROUND: Final = (129, 142, 36, 205, 187, 207, 214, 212, 216, 206, 203)
"""Points around a crease, of the right cheek"""
RIM: Final = 0.03
"""How soft that area's edge is, in distances between the eyes like all that follows"""
WIDEST: Final = 0.1
"""A crease is no wider …"""
LENGTH: Final = 0.16
"""… and no shorter: spots are no creases."""
SLOPES: Final = (35, 50, 65, 80)
"""Degrees that it falls away from the nose"""
DEPTH: Final = (0.03, 0.08)
"""How much darker than the skin beside it, as a logarithm, a line is that counts; from the second
on it counts wholly"""
HAIR: Final = (0.5, 0.8)
"""So dark is hair …"""
DENSE: Final = (0.25, 0.45)
"""… or a cheek with so many dark places: stubble"""
OPENING: Final = 1.5
"""Times as far as the map says a crease opens: the map is coarser, and shows less of it. Of people
kept aside 1 is as near to the truth; by eye too much of the line stays."""
REACH: Final = 0.1
"""How far from its usual place on a cheek a crease is looked for, as a share of the cheek"""
WHOLE: Final = 3.0
"""Times how surely there is a line, its rims count as the line …"""
SOFT: Final = 0.012
"""… softly"""
BESIDE: Final = 0.05
"""How far from it skin is that covers it"""
LEAST: Final = 0.02
"""Share of a crease that isn't worth a frame's time"""


@dataclass(frozen=True, eq=False)
class Crease:
    """One cheek's, in a box of the source's crop that begins at (x, y)."""

    around: tuple[int, ...]
    x: int
    y: int
    line: NDArray[np.uint8]
    """(H, W) how surely a pixel is the line's"""
    beside: float
    """Pixels beyond the line at which skin is taken to cover it"""
    weight: Map
    """(G, G) where it is on the grid of a change of light; times a change as deep, it sums to 1"""
    span: NDArray[np.float32]
    """(2, 2) where it begins and ends on its cheek: (x, y) as shares of the box of points around"""

    @classmethod
    def of(
        cls,
        crop: NDArray[np.uint8],
        points: NDArray[np.float32],
        around: tuple[int, ...],
        grid: int,
    ) -> Crease | None:
        """Of a crop (S, S, 3) with its face at points (478, 3); `None` where there is none."""
        side = len(crop)
        eyes = [points[list(corners), :2].mean(0) for corners in EYE_CORNERS]
        unit = float(np.linalg.norm(eyes[1] - eyes[0]))
        hull = cv2.convexHull(points[list(around), :2])
        low = np.floor(hull.min((0, 1)) - WIDEST * unit).astype(int).clip(0, side)
        end = np.ceil(hull.max((0, 1)) + WIDEST * unit).astype(int).clip(0, side)
        if (end - low < WIDEST * unit).any():
            return None
        part = crop[low[1] : end[1], low[0] : end[0]]
        area = np.zeros(part.shape[:2], np.float32)
        cv2.fillConvexPoly(area, np.rint(hull - low).astype(np.int32), 1.0)
        area = cv2.GaussianBlur(area, (0, 0), RIM * unit)
        leans = 1 if around is AROUND else -1
        depth = _lines(part, unit, leans)
        share = (area * smoothstep((depth - DEPTH[0]) / (DEPTH[1] - DEPTH[0]))).astype(np.float32)
        total = float((share * depth).sum())
        if total < unit * WIDEST * LENGTH:  # a shadow of a line
            return None
        whole = np.zeros(crop.shape[:2], np.float32)
        whole[low[1] : end[1], low[0] : end[0]] = share
        line = cv2.GaussianBlur(np.clip(WHOLE * share, 0, 1), (0, 0), SOFT * unit)
        line = np.rint(255 * line).astype(np.uint8)
        x, y, wide, high = cv2.boundingRect(line)
        if not wide:
            return None
        start = low + np.array([x, y])
        ends = np.stack([start, start + np.array([wide, high])]) - hull.min((0, 1))
        return cls(
            around=around,
            x=int(start[0]),
            y=int(start[1]),
            line=np.ascontiguousarray(line[y : y + high, x : x + wide]),
            beside=BESIDE * unit,
            weight=cv2.resize(whole, (grid, grid), interpolation=cv2.INTER_AREA)
            * np.float32((side / grid) ** 2 / total),
            span=(ends / np.ptp(hull, axis=(0, 1))).astype(np.float32),
        )

    def open(
        self,
        frame: NDArray[np.uint8],
        change: Map,
        flow: Correspondence,
        driven: NDArray[np.float32],
    ) -> None:
        """Covers it, in place: in a warped frame (S, S, 3) with its face at driven points (478, 3),
        as far as a change (G, G) of the light says."""
        share = min(OPENING * float((self.weight * change).sum()), 1)
        if share < LEAST:
            return
        side, cells = len(frame), len(flow.shift)
        cheek = driven[list(self.around), :2]
        span = self.span + np.array([[-REACH], [REACH]], np.float32)
        box = cheek.min(0) + span * np.ptp(cheek, axis=0)
        (left, top), (right, bottom) = np.rint(box).astype(int).clip(0, side).tolist()
        if right <= left or bottom <= top:
            return
        zoom = cells / side
        onto = np.array(
            [[zoom, 0, (left + 0.5) * zoom - 0.5], [0, zoom, (top + 0.5) * zoom - 0.5]], np.float32
        )
        places = cv2.warpAffine(
            flow.shift,
            onto,
            (right - left, bottom - top),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        places[..., 0] += np.arange(left - self.x, right - self.x, dtype=np.float32)
        places[..., 1] += np.arange(top - self.y, bottom - self.y, dtype=np.float32)[:, None]
        line = cv2.remap(self.line, places, None, cv2.INTER_LINEAR)
        part = frame[top:bottom, left:right]
        covered = line * np.float32(share / 255)
        beside = _beside(part, line, self.beside)
        frame[top:bottom, left:right] = cv2.blendLinear(beside, part, covered, 1 - covered)


def creases(
    model: MorphableModel, crop: NDArray[np.uint8], points: NDArray[np.float32], *, grid: int
) -> tuple[Crease, ...]:
    """Of both cheeks of a crop (S, S, 3) with its face at points (478, 3)."""
    mirrored = tuple(model.mirror[list(AROUND)].tolist())
    found = (Crease.of(crop, points, around, grid=grid) for around in (AROUND, mirrored))
    return tuple(crease for crease in found if crease is not None)


def _beside(part: NDArray[np.uint8], line: NDArray[np.uint8], far: float) -> NDArray[np.uint8]:
    """What a picture (H, W, 3) shows so far beside its line (H, W), without that."""
    skin = cv2.bitwise_not(line)
    known = cv2.merge([cv2.multiply(part, cv2.merge([skin] * 3), scale=1 / 255), skin])
    # It is soft: a few pixels tell.
    size = tuple(max(1, round(side / max(far, 1))) for side in line.shape[::-1])
    known = cv2.resize(known, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    known = cv2.GaussianBlur(known, (0, 0), 1)
    colour = 255 * known[..., :3] / np.maximum(known[..., 3:], 1)
    soft = np.rint(colour).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(soft, line.shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _lines(part: NDArray[np.uint8], unit: float, leans: int) -> Map:
    """How deep dark lines of a picture (H, W, 3) are, (H, W); `leans` is 1 where they fall to the
    left, -1 to the right."""
    width = 2 * round(WIDEST * unit / 2) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    beside = cv2.morphologyEx(part, cv2.MORPH_CLOSE, disk)
    beside = cv2.GaussianBlur(beside, (0, 0), WIDEST * unit / 6).astype(np.float32)
    grain = cv2.GaussianBlur(part, (0, 0), max(0.01 * unit, 0.3))
    missing = np.maximum(beside - grain, 0)
    light = np.maximum(beside @ LUMA, DARKEST)
    depth = -np.log(np.maximum(1 - (missing @ LUMA) / light, 0.05)).astype(np.float32)
    dark = np.float32(depth > DEPTH[1])
    dense = cv2.GaussianBlur(dark, (0, 0), WIDEST * unit)
    skin = 1 - smoothstep((dense - DENSE[0]) / (DENSE[1] - DENSE[0]))
    skin = skin * (1 - smoothstep((depth - HAIR[0]) / (HAIR[1] - HAIR[0])))
    along = [cv2.morphologyEx(depth, cv2.MORPH_OPEN, _line(unit, leans * s)) for s in SLOPES]
    # Its rim, too: the elements have stairs.
    line = np.minimum(cv2.dilate(np.max(along, axis=0), np.ones((3, 3))), depth)
    return (skin * line).astype(np.float32)


def _line(unit: float, slope: float) -> NDArray[np.uint8]:
    """A structuring element: a crease's length, falling to the left by so many degrees."""
    half = max(1, round(LENGTH * unit / 2))
    angle = np.radians(slope)
    end = np.rint(half * np.array([-np.cos(angle), np.sin(angle)])).astype(int)
    element = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    middle = np.array([half, half])
    cv2.line(element, (middle - end).tolist(), (middle + end).tolist(), 1)
    return element
