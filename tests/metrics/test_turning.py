from __future__ import annotations

import numpy as np
import pytest
import torch

from metaportrait_cli.metrics.turning import background_motion, kernel_distance, stretch_and_folds

INSIDE = np.ones((32, 32), bool)


def shift_by(across: float, down: float) -> np.ndarray:
    """The flow at side 64 of a picture that is scaled so much."""
    centres = np.arange(32, dtype=np.float32) * 2 + 1
    x, y = np.meshgrid(centres, centres)
    return np.dstack([x / across - x, y / down - y]).astype(np.float32)


@pytest.mark.parametrize(
    ("across", "down", "wanted"),
    [(1, 1, (0, 0)), (1.8, 1, (0, 0)), (1, 3, (1, 0)), (-1, 1, (0, 1)), (0.2, 1, (0, 0))],
)
def test_stretch_and_folds(across: float, down: float, wanted: tuple[float, float]) -> None:
    assert stretch_and_folds(shift_by(across, down), INSIDE, side=64) == wanted


def test_motion_of_the_background_is_told_in_pixels() -> None:
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 255, (16, 24, 3)).astype(np.uint8)
    picture = coarse.repeat(8, 0).repeat(8, 1)
    moved = np.roll(picture, 3, axis=1)
    inner = np.zeros(picture.shape[:2], bool)
    inner[20:-20, 20:-20] = True
    assert background_motion(picture, picture, inner) < 0.05
    assert background_motion(picture, moved, inner) == pytest.approx(3, abs=0.6)


def test_who_moves_before_a_plain_background_does_not_move_it() -> None:
    pictures = np.full((2, 96, 96, 3), 240, np.uint8)
    person = np.random.default_rng(1).integers(0, 200, (40, 30, 3)).astype(np.uint8)
    pictures[0, 40:80, 30:60] = pictures[1, 40:80, 38:68] = person
    background = np.ones((96, 96), bool)
    background[30:90, 20:78] = False
    assert background_motion(pictures[0], pictures[1], background) < 0.01


def test_sets_of_one_kind_are_nearer_than_of_two() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 60, 16, generator=draw)
    assert abs(kernel_distance(first, second)) < 0.1
    assert kernel_distance(first, second + 1) > 0.3
