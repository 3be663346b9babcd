from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaportrait_cli.face.crop import Crop, border_fade


@given(
    x0=st.integers(-300, 300),
    y0=st.integers(-300, 300),
    side=st.integers(16, 900),
    size=st.sampled_from([64, 256, 512]),
)
def test_points_come_back_from_the_crop(x0: int, y0: int, side: int, size: int) -> None:
    crop = Crop(x0, y0, side)
    points = np.array([[0, 0, 0], [31.5, 7.25, -12], [400, 90, 55]], np.float32)
    back = crop.to_picture(crop.to_crop(points, size), size)
    np.testing.assert_allclose(back, points, atol=2e-3)


def test_crop_frames_the_face_as_the_authors_do() -> None:
    points = np.zeros((478, 3), np.float32)
    points[:, 0] = np.linspace(100, 180, 478)
    points[:, 1] = np.linspace(50, 160, 478)
    crop = Crop.around(points)
    inside = crop.to_crop(points, 1)[:, :2]
    low, high = inside.min(0), inside.max(0)
    assert high[1] - low[1] == pytest.approx(0.55, abs=0.01)
    np.testing.assert_allclose((low + high) / 2, (0.5, 0.53), atol=0.01)


@pytest.mark.parametrize(
    ("x", "y", "size"), [(20, 30, 100), (150, 60, 80), (120, 100, 60), (5, 2, 190)]
)
def test_crop_keeps_within_the_picture_as_far_as_the_face_allows(
    x: float, y: float, size: float
) -> None:
    width, height = 300, 200
    points = np.zeros((478, 3), np.float32)
    points[:, 0] = np.linspace(x, x + 0.8 * size, 478)
    points[:, 1] = np.linspace(y, y + size, 478)
    crop = Crop.around(points, within=(width, height))
    assert crop.x0 <= x
    assert crop.y0 <= y
    assert crop.x0 + crop.side >= x + 0.8 * size
    assert crop.y0 + crop.side >= y + size
    if 1.25 * size <= height:
        assert crop.x0 >= 0
        assert crop.y0 >= 0
        assert crop.x0 + crop.side <= width
        assert crop.y0 + crop.side <= height


@given(
    left=st.floats(0, 140),
    top=st.floats(0, 60),
    right=st.floats(160, 300),
    bottom=st.floats(70, 200),
)
def test_a_crop_grows_to_hold_a_head(left: float, top: float, right: float, bottom: float) -> None:
    crop, within = Crop(100, 50, 100), (300, 200)
    low, high = np.array([left, top], np.float32), np.array([right, bottom], np.float32)
    grown = crop.holding(low, high, within=within)
    assert grown.x0 >= 0
    assert grown.y0 >= 0
    assert grown.x0 + grown.side <= within[0]
    assert grown.y0 + grown.side <= within[1]
    assert grown.x0 <= crop.x0
    assert grown.y0 <= crop.y0
    assert grown.x0 + grown.side >= crop.x0 + crop.side
    assert grown.y0 + grown.side >= crop.y0 + crop.side
    assert grown.side <= 1.4 * crop.side
    assert grown.side % 2 == 0


def test_hair_that_fits_leaves_the_crop_alone_and_a_hat_has_room() -> None:
    crop, within = Crop(100, 100, 100), (400, 400)
    low, high = np.array([120.0, 110.0]), np.array([180.0, 180.0])
    assert crop.holding(low, high, within=within) is crop
    odd = Crop(100, 100, 101)
    assert odd.holding(low, high, within=within) == Crop(99, 99, 102)
    low[1] = 90
    grown = crop.holding(low, high, within=within)
    assert grown.y0 + grown.side == 200
    assert (90 - grown.y0) / grown.side == pytest.approx(0.08, abs=0.01)
    assert grown.x0 + grown.side / 2 == pytest.approx(150, abs=1)


def test_cut_takes_the_right_pixels_and_repeats_edges() -> None:
    image = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10, 1).repeat(3, 2)
    inside = Crop(3, 1, 4).cut(image, 4)
    np.testing.assert_array_equal(inside, image[1:5, 3:7])
    beyond = Crop(-2, 3, 6).cut(image, 6)
    np.testing.assert_array_equal(beyond[:3, 2:], image[3:6, 0:4])
    np.testing.assert_array_equal(beyond[:, 0], beyond[:, 2])
    np.testing.assert_array_equal(beyond[5], beyond[2])


def test_inside_slices_match() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    crop = Crop(-8, 20, 30)
    rows, columns, crop_rows, crop_columns = crop.inside(60, 40)
    np.testing.assert_array_equal(
        image[rows, columns], crop.cut(image, 30)[crop_rows, crop_columns]
    )


def test_fade_is_zero_at_picture_edges_inside_the_crop() -> None:
    crop = Crop(-20, 10, 100)  # reaches 20 px beyond the left edge of a 200 × 90 picture
    fade = border_fade(crop, width=200, height=90, size=100, share=0.1)
    assert fade.shape == (100, 100)
    assert fade[50, :20].max() == 0.0
    assert fade[50, 21] < 0.1
    assert fade[50, 50] == 1.0
    assert fade[80:, 50].max() == 0.0
