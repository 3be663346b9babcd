from __future__ import annotations

import numpy as np

from metaportrait_cli.render.behind.plate import background, revealed, spread


def test_stripes_go_on_behind_the_person() -> None:
    x = np.arange(180)
    stripes = np.where((x // 10) % 2, 220, 40).astype(np.uint8)
    picture = np.repeat(np.repeat(stripes[None, :, None], 140, 0), 3, 2)
    truth = picture.copy()
    alpha = np.zeros((140, 180), np.float32)
    alpha[50:100, 60:120] = 1
    picture[50:100, 60:120] = (255, 0, 0)
    plate = background(picture, alpha, width=60.0)
    hole = alpha > 0
    assert np.abs(plate.astype(int) - truth)[hole].mean() < 12
    assert np.array_equal(plate[:40], truth[:40])


def test_a_pillar_goes_on_behind_a_head_that_leaves_its_edge_alone_in_sight() -> None:
    picture = np.full((256, 256, 3), 210, np.uint8)
    picture[:, 40:100] = 30
    alpha = np.zeros((256, 256), np.float32)
    alpha[40:, 50:190] = 1
    picture[alpha > 0] = (180, 90, 80)
    plate = background(picture, alpha, width=130.0)
    seen = plate[60:220, 52:70]
    assert np.abs(seen.astype(int) - 30).mean() < 15


def test_what_fills_a_soft_background_has_no_sharp_border() -> None:
    y, x = np.mgrid[:256, :256]
    soft = 128 + 70 * np.sin(x / 30) + 30 * np.cos(y / 40)
    picture = np.repeat(soft[..., None], 3, 2).astype(np.uint8)
    steepest = np.abs(np.diff(picture[..., 0].astype(int), axis=1)).max()
    alpha = np.zeros((256, 256), np.float32)
    alpha[60:, 70:180] = 1
    picture[alpha > 0] = (250, 10, 10)
    plate = background(picture, alpha, width=100.0)[..., 0].astype(int)
    assert max(np.abs(np.diff(plate, axis=axis)).max() for axis in (0, 1)) <= 2 * steepest


def test_nothing_of_the_person_shines_through() -> None:
    picture = np.full((96, 128, 3), 90, np.uint8)
    alpha = np.zeros((96, 128), np.float32)
    alpha[30:, 40:90] = 1
    alpha[30:, 38:40] = 0.4
    picture[alpha > 0] = (250, 10, 10)
    assert np.abs(background(picture, alpha, width=50.0).astype(int) - 90).max() <= 1


def test_a_picture_full_of_person_is_its_own_background() -> None:
    picture = np.full((40, 40, 3), 7, np.uint8)
    assert background(picture, np.ones((40, 40), np.float32), width=30.0) is picture


def test_colours_spread_smoothly_from_where_they_are_known() -> None:
    values = np.zeros((33, 50, 2), np.float32)
    values[..., 0] = np.linspace(0, 1, 50)
    known = np.ones((33, 50), np.float32)
    known[10:20, 15:30] = 0
    filled = spread(values, known)
    assert np.array_equal(filled[known > 0], values[known > 0])
    assert np.abs(filled[..., 0] - values[..., 0]).max() < 0.15


def test_what_another_frame_shows_of_the_background_is_taken_from_it() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(20, 200, (120, 160, 3)).astype(np.uint8)
    alphas = np.zeros((2, 120, 160), np.float32)
    alphas[0, 30:, 40:100] = 1
    alphas[1, 30:, 70:130] = 1
    here, there = truth.copy(), truth + 9  # in a little more light
    here[alphas[0] > 0] = there[alphas[1] > 0] = 250
    shown, left = revealed(here, alphas[0], [(there, alphas[1])], width=50.0)
    gained = (alphas[0] > 0) & (left == 0)
    assert gained[40:, 42:66].all()
    assert not left[alphas[0] == 0].any()
    assert np.abs(shown[gained].astype(int) - truth[gained]).max() <= 1
    elsewhere = draw.integers(20, 200, truth.shape).astype(np.uint8)
    same, all_left = revealed(here, alphas[0], [(elsewhere, alphas[1])], width=50.0)
    assert np.array_equal(same, here)
    assert np.array_equal(all_left, alphas[0])
