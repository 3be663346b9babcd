"""From driven landmarks to pictures of the crop: the seam where renderers are exchanged.

A renderer works in windows of consecutive frames. It does its source-only work once, in `open`.
Today's renderer is the analytic correspondence warp; learned warp and refinement are further
implementations of the same protocol, and temporal super-resolution is an `Enhancer` after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import border_fade, smoothstep
from metaportrait_cli.face.hidden_side import HiddenSide
from metaportrait_cli.pipeline.source import Source
from metaportrait_cli.pipeline.warps import Warp, WarpMaker, analytic_warp

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.region_refiner import RegionRefiner

Frames = NDArray[np.uint8]  # (T, S, S, 3) RGB


class RenderSession(Protocol):
    """One source, ready to be driven."""

    def render(self, driven: NDArray[np.float32]) -> Frames:
        """Pictures of the crop for driven landmarks (T, 478, 3) in pixels of the crop.

        Of the size asked for, or of the network's own; composing scales them.
        """
        ...


class Renderer(Protocol):
    """Makes sessions; holds weights, if any."""

    @property
    def fixed_size(self) -> int | None:
        """The side of the pictures that its network paints, if it paints whole ones."""
        ...

    @property
    def keeps_detail(self) -> bool:
        """Whether larger pictures show what detail the source has, rather than enlarged paint."""
        ...

    def open(self, source: Source, *, size: int) -> RenderSession:
        """Does all work that depends on the source alone, for output of `size` × `size`.

        Further pictures of the source take no part; see `views.open_views`.
        """
        ...


class Enhancer(Protocol):
    """Takes rendered windows in order and gives enhanced ones; may lag, must not lose a frame."""

    def window(self, session: RenderSession, driven: NDArray[np.float32], /) -> Any:
        """Renders driven landmarks (T, 478, 3) with whatever `enhance` will want to know."""
        ...

    def enhance(self, windows: Iterable[Any], source: Source) -> Iterator[Frames]:
        """What `window` gave → pictures (n, S, S, 3) of the same frames in the same order."""
        ...


class Repaint(Protocol):
    """Paints what a warp can't give."""

    def repaint(
        self, frame: NDArray[np.uint8], driven: NDArray[np.float32], gap: NDArray[np.float32], /
    ) -> None:
        """Changes the frame (S, S, 3) of driven landmarks (478, 3) in place.

        `gap` (N, 2) is the mouth opening that the source doesn't show, see `Correspondence`.
        """
        ...


class AnalyticRenderer:
    """Moves the source's own pixels along the dense correspondence; invents only a dark mouth.

    Networks may help: `warp_of` makes the flow of each picture, by default the analytic one;
    `refiner` repaints mouth and eyes, its mouth replacing the dark one.
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

    def refined_by(self, refiner: RegionRefiner) -> AnalyticRenderer:
        """The same warp with another refiner."""
        return AnalyticRenderer(self._warp_of, refiner)

    def open(self, source: Source, *, size: int) -> AnalyticSession:
        """Cuts the crop and prepares the flow."""
        height, width = source.picture.shape[:2]
        fade = border_fade(
            source.crop, width=width, height=height, size=self.GRID, share=self.FADE_SHARE
        )
        landmarks = source.landmarks(size)
        crop = source.crop.cut(source.picture, size)
        regions: Repaint = MouthInside(crop, landmarks)
        if self.refiner is not None:
            regions = self.refiner.open(crop, landmarks)
        return AnalyticSession(
            crop,
            warp=self._warp_of(crop, landmarks, fade),
            hidden=HiddenSide(landmarks, crop=crop, grid=self.GRID),
            regions=regions,
        )


@dataclass(frozen=True)
class AnalyticSession:
    """One source crop (S, S, 3) under a warp."""

    crop: NDArray[np.uint8]
    warp: Warp
    hidden: HiddenSide
    regions: Repaint

    def render(self, driven: NDArray[np.float32]) -> Frames:
        """Pictures (T, S, S, 3) for driven landmarks (T, 478, 3)."""
        return np.stack([self._render_one(points) for points in driven])

    def warped(self, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The crop (S, S, 3) moved to driven landmarks (478, 3), before mouth and eyes are
        repainted; and the mouth opening (N, 2) that it doesn't show."""
        flow = self.warp(points)
        frame = self._with_hidden_side(_sampled(self.crop, flow.shift), points)
        return frame, flow.mouth_gap

    def _render_one(self, points: NDArray[np.float32]) -> NDArray[np.uint8]:
        frame, gap = self.warped(points)
        self.regions.repaint(frame, points, gap)
        return frame

    def _with_hidden_side(
        self, frame: NDArray[np.uint8], points: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """The frame (S, S, 3) with what the source hides of the face taken from its other side."""
        fill = self.hidden.fill(points)
        if fill is None:
            return frame
        weight = cv2.resize(fill.weight, frame.shape[:2], interpolation=cv2.INTER_LINEAR)
        other = _sampled(self.crop, fill.shift) * self.hidden.light
        other = np.clip(np.rint(other), 0, 255).astype(np.uint8)
        return cv2.blendLinear(other, frame, weight, 1 - weight)


class MouthInside:
    """A plausible dark inside for the part of an opened mouth that the source doesn't show.

    Its colour is the source's own lips in deep shade, a little lighter towards the lower lip
    where a tongue would lie.
    """

    SHADE_TOP, SHADE_BOTTOM = 0.16, 0.34
    SUBPIXEL_BITS = 4

    def __init__(self, crop: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> None:
        lips = np.concatenate([topology.ring("lips_outer"), topology.ring("lips_inner")])
        places = np.clip(landmarks[lips, :2].astype(int), 0, crop.shape[0] - 1)
        colour = np.median(crop[places[:, 1], places[:, 0]].astype(np.float32), axis=0)
        self._lips = colour * np.array([1.0, 0.75, 0.75], np.float32)
        eyes = landmarks[[topology.IRISES[0][0], topology.IRISES[1][0]], :2]
        self._unit = float(np.linalg.norm(eyes[1] - eyes[0]))

    def repaint(
        self, frame: NDArray[np.uint8], _driven: NDArray[np.float32], gap: NDArray[np.float32]
    ) -> None:
        """Paints the gap polygon (N, 2) into the frame (S, S, 3), in place."""
        height = float((gap[len(gap) // 2 + 1 :, 1][::-1] - gap[1 : len(gap) // 2, 1]).max())
        # Below a few hundredths of the eye distance it is the landmarks' noise, not a mouth.
        strength = float(smoothstep((height / self._unit - 0.02) / 0.05))
        if strength <= 0:
            return
        pad = 3 + int(0.03 * self._unit)
        x0, y0 = np.maximum(np.floor(gap.min(0)).astype(int) - pad, 0)
        x1, y1 = np.minimum(np.ceil(gap.max(0)).astype(int) + pad, frame.shape[0])
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        scale = 1 << self.SUBPIXEL_BITS
        # Points have their origin at a pixel's corner, cv2 draws from its centre.
        polygon = np.rint((gap - (x0 + 0.5, y0 + 0.5)) * scale).astype(np.int32)
        cv2.fillPoly(mask, [polygon], 255, cv2.LINE_AA, self.SUBPIXEL_BITS)
        soft = max(0.5, 0.012 * self._unit)
        alpha = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), soft)[..., None] * strength
        depth = np.linspace(0, 1, y1 - y0, dtype=np.float32)[:, None, None]
        shade = self.SHADE_TOP + (self.SHADE_BOTTOM - self.SHADE_TOP) * depth**2
        region = frame[y0:y1, x0:x1]
        region[:] = np.rint(region * (1 - alpha) + self._lips * shade * alpha).astype(np.uint8)


def _sampled(crop: NDArray[np.uint8], shift: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The crop (S, S, 3) moved by a backward flow (G, G, 2) in its pixels."""
    size = crop.shape[0]
    places = cv2.resize(shift, (size, size), interpolation=cv2.INTER_LINEAR)
    places[..., 0] += np.arange(size, dtype=np.float32)[None, :]
    places[..., 1] += np.arange(size, dtype=np.float32)[:, None]
    return cv2.remap(crop, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
