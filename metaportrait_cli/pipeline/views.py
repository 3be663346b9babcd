"""Several pictures of one person: the face comes from those turned most like the driving pose.

The first picture gives hair, background and light. Another one that is nearer to the driving pose
lends its face, in the first one's colours and blended in at the oval, so that a turned cheek is
seen rather than stretched.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.alignment import similarity
from metaportrait_cli.face.hidden_side import HiddenSide
from metaportrait_cli.face.retarget import match_views
from metaportrait_cli.pipeline.source import Source
from metaportrait_cli.pipeline.warps import Warp, WarpMaker, analytic_warp

LEAST_WEIGHT = 0.02
# The blend ends inside the oval: this share of the face's width, in from the rim.
RIM_SHARE = 0.05
GRID = 256


@dataclass(frozen=True)
class View:
    """One picture's crop (S, S, 3) and the flow from it."""

    crop: NDArray[np.uint8]
    warp: Warp
    hidden: HiddenSide


class FurtherViews:
    """The other pictures of a source, at the size of its rendered crop."""

    def __init__(
        self, source: Source, *, crop: NDArray[np.uint8], warp_of: WarpMaker = analytic_warp
    ) -> None:
        size = crop.shape[0]
        self._first = source.landmarks(size)
        everywhere = np.ones((GRID, GRID), np.float32)
        self.views: list[View] = []
        rotations = [np.eye(3, dtype=np.float32)]
        colours = _colours(crop, self._first)
        for other in source.others:
            points = other.landmarks(size)
            picture = other.crop.cut(other.picture, size)
            picture = _recoloured(picture, points, colours)
            warp = warp_of(picture, points, everywhere)
            hidden = HiddenSide(points, crop=picture, grid=GRID)
            self.views.append(View(picture, warp, hidden))
            rotations.append(_rotation(self._first, points))
        self._rotations = np.stack(rotations)

    def weights(self, driven: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weights (1 + others,) of the pictures for a driven frame (478, 3); they sum to 1."""
        turn = _rotation(self._first, driven)[None]
        weights = match_views(self._rotations, turn)[0]
        weights[weights < LEAST_WEIGHT] = 0
        return weights / weights.sum()

    def blended(
        self,
        frame: NDArray[np.uint8],
        others: list[tuple[float, NDArray[np.uint8]]],
        driven: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """The first picture's frame (S, S, 3) with the weighted faces of others blended in."""
        mixed = frame * np.float32(1 - sum(weight for weight, _ in others))
        for weight, other in others:
            mixed += np.float32(weight) * other
        mask = _face_mask(driven, frame.shape[0])[..., None]
        return np.rint(frame * (1 - mask) + mixed * mask).astype(np.uint8)


def sampled(crop: NDArray[np.uint8], shift: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The crop (S, S, 3) moved by a backward flow (G, G, 2) in its pixels."""
    size = crop.shape[0]
    places = cv2.resize(shift, (size, size), interpolation=cv2.INTER_LINEAR)
    places[..., 0] += np.arange(size, dtype=np.float32)[None, :]
    places[..., 1] += np.arange(size, dtype=np.float32)[:, None]
    return cv2.remap(crop, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def with_hidden_side(
    frame: NDArray[np.uint8], view: View, driven: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The frame (S, S, 3) with what the view hides of the face filled in from its other side."""
    fill = view.hidden.fill(driven)
    if fill is None:
        return frame
    weight = cv2.resize(fill.weight, frame.shape[:2], interpolation=cv2.INTER_LINEAR)
    other = sampled(view.crop, fill.shift) * view.hidden.light
    other = np.clip(np.rint(other), 0, 255).astype(np.uint8)
    return cv2.blendLinear(other, frame, weight, 1 - weight)


def _rotation(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotation (3, 3) of the head from the first landmarks (478, 3) to the second."""
    weights = np.ones(len(first), np.float32)[None]
    return similarity(first[None], second[None], weights)[0][0]


def _face_mask(points: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Weights (S, S): 1 inside the face oval, softly 0 at its rim."""
    oval = points[topology.ring("face_oval"), :2]
    width = float(np.ptp(oval[:, 0]))
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.rint((oval - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    rim = max(1, round(RIM_SHARE * width))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
    inner = cv2.erode(mask, kernel).astype(np.float32) / 255
    return cv2.GaussianBlur(inner, (0, 0), rim / 2)


def _colours(
    crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation (3,) of the skin in a crop."""
    skin = crop[_face_mask(points, crop.shape[0]) > 0.5].astype(np.float32)
    return skin.mean(0), skin.std(0) + 1.0


def _recoloured(
    crop: NDArray[np.uint8],
    points: NDArray[np.float32],
    wanted: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.uint8]:
    """The crop with its skin's mean and spread made those of the first picture."""
    mean, spread = _colours(crop, points)
    recoloured = (crop - mean) * (wanted[1] / spread) + wanted[0]
    return np.clip(np.rint(recoloured), 0, 255).astype(np.uint8)
