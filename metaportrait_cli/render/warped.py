"""From driven landmarks to pictures of the crop: the seam where renderers are exchanged.

A renderer works in windows of consecutive frames. It does its source-only work once, in `open`.
Today's renderer is the analytic correspondence warp; learned warp and refinement are further
implementations of the same protocol, and temporal super-resolution is an `Enhancer` after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import moved_by
from metaportrait_cli.face.crop import border_fade
from metaportrait_cli.face.hidden_side import HiddenSide
from metaportrait_cli.face.mouth_inside import MouthInside
from metaportrait_cli.face.source import Source
from metaportrait_cli.render.flows import Warp, WarpMaker, analytic_warp
from metaportrait_cli.render.protocol import Frames

if TYPE_CHECKING:
    from metaportrait_cli.render.regions import OpenedRegions, RegionRefiner


class WarpRenderer:
    """Moves the source's own pixels along the dense correspondence; invents only a dark mouth.

    Networks may help: `warp_of` makes the flow of each picture, by default the analytic one;
    `refiner` repaints mouth and eyes, starting from that dark mouth.
    """

    GRID = 256
    FADE_SHARE = 0.12
    fixed_size = None
    keeps_detail = True

    def __init__(
        self, warp_of: WarpMaker = analytic_warp, refiner: RegionRefiner | None = None
    ) -> None:
        self._warp_of = warp_of
        self.refiner = refiner

    def refined_by(self, refiner: RegionRefiner) -> WarpRenderer:
        """The same warp with another refiner."""
        return WarpRenderer(self._warp_of, refiner)

    def open(self, source: Source, *, size: int) -> WarpSession:
        """Cuts the crop and prepares the flow."""
        height, width = source.picture.shape[:2]
        fade = border_fade(
            source.crop, width=width, height=height, size=self.GRID, share=self.FADE_SHARE
        )
        landmarks = source.landmarks(size)
        crop = source.crop.cut(source.picture, size)
        return WarpSession(
            crop,
            warp=self._warp_of(crop, landmarks, fade),
            hidden=HiddenSide(landmarks, crop=crop, grid=self.GRID),
            mouth=MouthInside(crop, landmarks),
            regions=self.refiner.open(crop, landmarks) if self.refiner is not None else None,
        )


@dataclass(frozen=True)
class WarpSession:
    """One source crop (S, S, 3) under a warp."""

    crop: NDArray[np.uint8]
    warp: Warp
    hidden: HiddenSide
    mouth: MouthInside
    regions: OpenedRegions | None

    def render(self, driven: NDArray[np.float32]) -> Frames:
        """Pictures (T, S, S, 3) for driven landmarks (T, 478, 3)."""
        frames = np.empty((len(driven), *self.crop.shape), np.uint8)
        gaps: list[NDArray[np.float32]] = []
        for t, points in enumerate(driven):
            frames[t], gap = self.warped(points)
            gaps.append(gap)
        if self.regions is not None:
            self.regions.repaint(frames, driven, gaps)
        return frames

    def warped(self, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The crop (S, S, 3) moved to driven landmarks (478, 3), its mouth dark where it shows
        nothing, before the regions are repainted; and that part of the mouth (N, 2)."""
        flow = self.warp(points)
        frame = self._with_hidden_side(moved_by(self.crop, flow.shift), points)
        self.mouth.fill(frame, flow.mouth_gap)
        return frame, flow.mouth_gap

    def _with_hidden_side(
        self, frame: NDArray[np.uint8], points: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """The frame (S, S, 3) with what the source hides of the face taken from its other side."""
        fill = self.hidden.fill(points)
        if fill is None:
            return frame
        weight = cv2.resize(fill.weight, frame.shape[:2], interpolation=cv2.INTER_LINEAR)
        other = moved_by(self.crop, fill.shift) * self.hidden.light
        other = np.clip(np.rint(other), 0, 255).astype(np.uint8)
        return cv2.blendLinear(other, frame, weight, 1 - weight)
