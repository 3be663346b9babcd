"""Warping error: nothing for a clip that moves as the truth does, much for one that doesn't."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.metrics.warping import true_motion, warping_error

SHIFT_X, SHIFT_Y = 5, 2  # unlike, so that swapped axes can't pass


@pytest.fixture(scope="module")
def frames(portrait: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two frames (200, 260, 3); in the later one everything is 5 px to the right and 2 down."""
    earlier = portrait[40:240, 100:360]
    later = portrait[40 - SHIFT_Y : 240 - SHIFT_Y, 100 - SHIFT_X : 360 - SHIFT_X]
    return np.ascontiguousarray(earlier), np.ascontiguousarray(later)


def test_flow_points_back_to_where_things_were(frames) -> None:
    motion = true_motion(*frames)
    assert motion.visible.mean() > 0.8
    shift = np.median(motion.backward[motion.visible], axis=0)
    assert shift == pytest.approx((-SHIFT_X, -SHIFT_Y), abs=0.2)
    # What comes in from the left wasn't in the earlier frame.
    assert not motion.visible[:, : SHIFT_X - 1].any()


def test_translated_clip_has_no_error_with_flow_and_much_without(frames) -> None:
    earlier, later = frames
    with_flow, without = warping_error(earlier, later, true_motion(earlier, later))
    assert with_flow < 0.03
    assert without > 5 * with_flow


def test_frozen_clip_is_as_wrong_as_the_truth_moves(frames) -> None:
    earlier, later = frames
    motion = true_motion(earlier, later)
    frozen, still = warping_error(earlier, earlier, motion)
    assert still == 0
    assert frozen > 3 * warping_error(earlier, later, motion)[0]


def test_still_truth_costs_nothing(frames) -> None:
    """Sampling at zero motion is exact; half a pixel's shift would show here."""
    frame = frames[0]
    assert warping_error(frame, frame, true_motion(frame, frame))[0] < 1e-3


def test_flicker_counts(frames) -> None:
    frame = frames[0]
    brighter = np.clip(frame.astype(int) + 10, 0, 245).astype(np.uint8)
    error, _ = warping_error(frame, brighter, true_motion(frame, frame))
    assert error == pytest.approx(3 * 10 / 255, rel=0.15)
