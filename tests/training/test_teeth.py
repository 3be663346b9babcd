"""Learning rows of teeth from open mouths."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.networks.teeth import TeethConfig
from metaportrait_cli.render.mouths.own_teeth import brightness, detail, matched
from metaportrait_cli.training.teeth.first_rows import LOWER, UPPER, Anatomy, first_row
from metaportrait_cli.training.teeth.learn import mean_skull
from metaportrait_cli.training.teeth.rows import (
    ENOUGH,
    Laid,
    mean_light,
    refined,
    template_of,
    texture_of,
)

CONFIG = TeethConfig(pixels=4)


def mouth(texture: NDArray[np.float32], *, brightest: float, shift: int) -> Laid:
    """A row as it would be seen, so many pixels beside its place."""
    light = brightest * texture[..., :3] + 0.02 * (1 - texture[..., 3:])
    v = (np.arange(len(light)) + 0.5) / CONFIG.pixels - CONFIG.gum
    known = np.broadcast_to((np.abs(v + 4) < 5)[:, None], light.shape[:2]).astype(np.float32)
    return Laid(*(np.roll(z, shift, axis=1).astype(np.float32) for z in (light, known)))


@pytest.mark.parametrize("anatomy", [UPPER, LOWER])
def test_a_row_has_gaps_between_its_teeth_and_gum_above(anatomy: Anatomy) -> None:
    row = first_row(anatomy, CONFIG)
    assert row.shape == CONFIG.texture
    pixels, width = CONFIG.pixels, CONFIG.texture[1]
    body = brightness(row[..., :3])[round((CONFIG.gum - 3) * pixels)]
    middle = width // 2
    gaps = [0.0, anatomy.widths[0], anatomy.widths[0] + anatomy.widths[1]]
    for gap in gaps:
        place = middle + round(gap * pixels)
        assert body[place - 1 : place + 2].min() < body[place + 2 * pixels] - 0.1
    red, green, _, cover = row[round((CONFIG.gum - 13) * pixels), middle + 2 * pixels]
    assert red > 2 * green > 0 == (cover < 0.9)


def test_rows_are_found_beside_their_place() -> None:
    row = first_row(UPPER, CONFIG)
    laid = mouth(row, brightest=0.5, shift=5)
    found = detail(brightness(laid.light), laid.known, CONFIG.pixels)
    likeness, x, y = matched(template_of(row, CONFIG.pixels), *found, reach=(12, 12))
    assert (x, y) == (-5, 0)
    assert likeness > 0.8
    there = mouth(row, brightest=0.5, shift=0)
    inside = (slice(None), slice(20, -20))
    np.testing.assert_allclose(laid.moved(x, y).light[inside], there.light[inside], atol=1e-5)


def test_the_mean_of_mouths_is_their_row_and_what_nobody_shows_is_anatomy() -> None:
    row, start = first_row(UPPER, CONFIG), first_row(LOWER, CONFIG)
    template = template_of(row, CONFIG.pixels)
    mouths = [
        (refined(template, mouth(row, brightest=b, shift=s), CONFIG.pixels), ENOUGH)
        for b, s in ((0.3, 0), (0.5, 2), (0.7, -2))
    ]
    body = np.zeros(CONFIG.texture[:2], bool)
    body[40:60, 80:190] = True
    mean, seen, count = mean_light(mouths, body)
    assert count == 3
    learnt = texture_of(mean, seen, start, CONFIG)
    place = (slice(44, 60), slice(80, 190))
    agree = np.corrcoef(learnt[place].mean(-1).ravel(), row[place].mean(-1).ravel())[0, 1]
    assert agree > 0.7
    np.testing.assert_array_equal(learnt[:8, :, 3], start[:8, :, 3])


def test_the_mean_face_is_symmetric_and_in_millimetres() -> None:
    draw = np.random.default_rng(0)
    face = draw.normal(0, 30, (478, 3))
    face = ((face + face[topology.mirror()] * [-1, 1, 1]) / 2).astype(np.float32)
    faces = np.stack([scale * face + 100 for scale in (1.0, 2.0, 3.0)])
    mean = mean_skull(faces)
    assert np.linalg.norm(mean[468] - mean[473]) == pytest.approx(63, rel=0.05)
    np.testing.assert_allclose(mean[:, 0].mean(), 0, atol=1e-6)
