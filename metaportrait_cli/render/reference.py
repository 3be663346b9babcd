"""A sharp picture of a face as reference for frames of it: moved into place, and how far to trust.

Super-resolution takes detail from it that frames of half the size have lost: pores, lashes, hair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence, CorrespondenceWarp
from metaportrait_cli.face.crop import Crop, border_fade, smoothstep
from metaportrait_cli.face.landmark_image import filled_polygon

GRID = 128
# Motion fades out over this share of the crop towards its border, as the analytic renderer's does.
FADE_SHARE = 0.12
# How much larger a patch of the picture is than where it goes to. Below the first bounds it is
# stretched or folded: skin that the picture hides; above the second ones it is crushed.
STRETCHED, STRETCHED_RAMP = 0.35, 0.3
CRUSHED, CRUSHED_RAMP = 1.9, 0.8

# Landmarks put the picture within a pixel or two. Optical flow on the frames' own size does the
# rest, but nothing beyond these distances (in pixels of the frame), and what still differs by more
# than these values (of RGB in [0, 1], over a few pixels) is something else.
FLOW_LIMIT, FLOW_RAMP = 3.0, 3.0
ERROR_LIMIT, ERROR_RAMP = 0.04, 0.08
ERROR_BLUR = 5
# Share of the way from the last frame's validity to this one's.
FOLLOW = 0.35

# Half-open pixel ranges of the crop: x from, y from, x to, y to.
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Placement:
    """How the picture has to move for one frame.

    `shift` (G, G, 2) float32, backward, in pixels of the crop, see `Correspondence`. `valid` (G, G)
    float32 in [0, 1]: 0 where the picture can't show what the frame does.
    """

    shift: NDArray[np.float32]
    valid: NDArray[np.float32]


class ReferenceWarp:
    """Moves one picture, a face's crop (S, S, 3), by a warp from it: driven landmarks -> flow."""

    def __init__(
        self,
        picture: NDArray[np.uint8],
        warp: Callable[[NDArray[np.float32]], Correspondence],
    ) -> None:
        self._picture = picture
        self._warp = warp
        self._small: NDArray[np.uint8] | None = None

    @classmethod
    def analytic(
        cls,
        picture: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        *,
        fade: NDArray[np.float32] | None = None,
    ) -> Self:
        """By the analytic warp of a face at `landmarks` (478, 3) in pixels of the picture.

        `fade` (G, G) as `CorrespondenceWarp` has it; by default motion ends at the picture's edge.
        """
        side = picture.shape[0]
        if fade is None:
            whole = Crop(0, 0, side)
            fade = border_fade(whole, width=side, height=side, size=GRID, share=FADE_SHARE)
        return cls(picture, CorrespondenceWarp(landmarks, side=side, fade=fade))

    def place(self, driven: NDArray[np.float32]) -> Placement:
        """Where it has to go for a frame with the face at `driven` (478, 3), pixels of the crop."""
        found = self._warp(driven)
        return Placement(found.shift, trust(found))

    def settled(self, placement: Placement, frame: NDArray[np.uint8]) -> Placement:
        """Corrected by what the frame (s, s, 3) itself shows, at any size; less valid where the
        picture still looks different there."""
        size = frame.shape[0]
        unit = self._picture.shape[0] / size
        grid = placement.valid.shape
        small = self._shrunk(size)
        shift, valid = (
            cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR)
            for field in (placement.shift / np.float32(unit), placement.valid)
        )
        moved = displaced(small, shift, bicubic=False)
        estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flow = estimator.calc(_grey(frame), _grey(moved), None)
        shift = flow + _at(shift, flow, cv2.INTER_LINEAR)
        moved = displaced(small, shift, bicubic=False)
        error = cv2.absdiff(moved, frame).max(-1).astype(np.float32) / 255
        error = cv2.blur(error, (ERROR_BLUR, ERROR_BLUR))
        length = np.linalg.norm(flow, axis=-1)
        valid = valid * (1 - smoothstep((error - ERROR_LIMIT) / ERROR_RAMP))
        valid *= 1 - smoothstep((length - FLOW_LIMIT) / FLOW_RAMP)
        shift, valid = (
            cv2.resize(field, grid, interpolation=cv2.INTER_AREA)
            for field in (shift * np.float32(unit), valid)
        )
        return Placement(shift, valid)

    def _shrunk(self, size: int) -> NDArray[np.uint8]:
        if self._small is None or self._small.shape[0] != size:
            self._small = cv2.resize(self._picture, (size, size), interpolation=cv2.INTER_AREA)
        return self._small

    def moved(
        self, placement: Placement, window: Window | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The picture (H, W, 3) in its place, and its validity (H, W), of a window or of all."""
        side = self._picture.shape[0]
        shift, valid = (
            cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR)
            for field in (placement.shift, placement.valid)
        )
        return displaced(self._picture, shift, window), cut_window(valid, window)


class SteadyReference:
    """A reference along a clip, in the order of its frames.

    How far it can be trusted is measured on each frame anew; detail that comes and goes shimmers,
    so validity follows slowly. Its place doesn't: what lags behind the face shimmers more.
    """

    def __init__(self, warp: ReferenceWarp) -> None:
        self._warp = warp
        self._valid: NDArray[np.float32] | None = None

    def place(self, driven: NDArray[np.float32], frame: NDArray[np.uint8]) -> Placement:
        """Where it has to go for the next frame (s, s, 3), with its face at `driven` (478, 3)."""
        settled = self._warp.settled(self._warp.place(driven), frame)
        last = settled.valid if self._valid is None else self._valid
        self._valid = cv2.addWeighted(settled.valid, FOLLOW, last, 1 - FOLLOW, 0)
        return Placement(settled.shift, self._valid)


def trust(found: Correspondence) -> NDArray[np.float32]:
    """How far a flow (G, G) shows what is there, in [0, 1]: not where it stretches or crushes the
    picture, nor inside a mouth that the picture doesn't show."""
    cell = found.side / found.shift.shape[0]
    x_down, x_across = np.gradient(found.shift[..., 0], cell)
    y_down, y_across = np.gradient(found.shift[..., 1], cell)
    area = (1 + x_across) * (1 + y_down) - x_down * y_across
    valid = smoothstep((area - STRETCHED) / STRETCHED_RAMP)
    valid *= 1 - smoothstep((area - CRUSHED) / CRUSHED_RAMP)
    gap = filled_polygon(found.mouth_gap, side=found.side, size=len(valid))
    valid *= 1 - gap.astype(np.float32) / 255
    return cv2.blur(valid, (3, 3))


def displaced(
    picture: NDArray[np.uint8],
    shift: NDArray[np.float32],
    window: Window | None = None,
    *,
    bicubic: bool = True,
) -> NDArray[np.uint8]:
    """A picture (S, S, 3), or a window of it, under a backward flow (S, S, 2) in its pixels."""
    method = cv2.INTER_CUBIC if bicubic else cv2.INTER_LINEAR
    return _at(picture, shift, method, window)


def cut_window(values: NDArray, window: Window | None) -> NDArray:
    """A window of an array (H, W, …); all of it without one."""
    if window is None:
        return values
    x0, y0, x1, y1 = window
    return values[y0:y1, x0:x1]


def _at(
    values: NDArray, shift: NDArray[np.float32], method: int, window: Window | None = None
) -> NDArray:
    """`values` (H, W, …) at each place plus `shift` (H, W, 2); edges repeat."""
    x0, y0, x1, y1 = window or (0, 0, values.shape[1], values.shape[0])
    places = cut_window(shift, (x0, y0, x1, y1)).copy()
    places[..., 0] += np.arange(x0, x1, dtype=np.float32)[None, :]
    places[..., 1] += np.arange(y0, y1, dtype=np.float32)[:, None]
    return cv2.remap(values, places, None, method, borderMode=cv2.BORDER_REPLICATE)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
