"""Steadiness in time: whether a clip's pixels move as the true clip's do."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Flow = NDArray[np.float32]  # (H, W, 2), pixels, (x, y)
# Forward and backward flow disagree by more than this where something is hidden (Sundaram et
# al., ECCV 2010, as in Ruder et al. 2016): a share of their squared lengths, and square pixels.
DISAGREEMENT_SHARE, DISAGREEMENT_FLOOR = 0.01, 0.5
BORDER = 2  # pixels


@dataclass(frozen=True)
class TrueMotion:
    """True motion from one frame to the next.

    `backward`: for each pixel of the later frame, how far away it was in the earlier one.
    `visible` (H, W) bool: pixels of the later frame that the earlier one shows.
    """

    backward: Flow
    visible: NDArray[np.bool_]


def true_motion(earlier: NDArray[np.uint8], later: NDArray[np.uint8]) -> TrueMotion:
    """DIS optical flow (Kroeger et al., ECCV 2016) between true frames (H, W, 3) RGB."""
    first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (earlier, later))
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward = estimator.calc(first, second, None)
    backward = estimator.calc(second, first, None)
    there = _sampled(forward, backward)
    disagreement = ((there + backward) ** 2).sum(-1)
    lengths = (there**2).sum(-1) + (backward**2).sum(-1)
    visible = disagreement <= DISAGREEMENT_SHARE * lengths + DISAGREEMENT_FLOOR
    height, width = visible.shape
    x, y = _places(backward)
    visible &= (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    visible[:BORDER] = visible[-BORDER:] = False
    visible[:, :BORDER] = visible[:, -BORDER:] = False
    return TrueMotion(backward, visible)


def warping_error(
    earlier: NDArray[np.uint8], later: NDArray[np.uint8], motion: TrueMotion
) -> tuple[float, float]:
    """How far the later frame is from the earlier one moved along the true motion.

    The paper's E_warp (section 4; Lai et al., ECCV 2018): absolute difference of RGB in [0, 1],
    summed over channels, averaged over visible pixels; 0 is best, 3 the limit. Frames (H, W, 3)
    are the whole crop at 256 × 256. The second value is the same without any motion: a clip that
    hardly moves has a small error either way.

    Flow here is DIS rather than RAFT, and sampling is exact at zero motion, while the released
    code shifts by up to half a pixel: values don't compare with the paper's table.
    """
    moved = _sampled(earlier, motion.backward)
    with_motion = _mean_difference(moved, later, motion.visible)
    return with_motion, _mean_difference(earlier, later, motion.visible)


def _sampled(values: NDArray[np.generic], flow: Flow) -> NDArray[np.float32]:
    """`values` (H, W, C) at each pixel's place plus `flow`, bilinear, edges repeated."""
    x, y = _places(flow)
    return cv2.remap(
        values.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _places(flow: Flow) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return x, y


def _mean_difference(
    first: NDArray[np.generic], second: NDArray[np.generic], visible: NDArray[np.bool_]
) -> float:
    difference = np.abs(first.astype(np.float32) - second.astype(np.float32)).sum(-1) / 255
    return float(difference[visible].mean()) if visible.any() else 0.0
