from __future__ import annotations

import numpy as np

from metaportrait_cli.render.behind.edges import edges, straighten


def _places(rows: list[list[float]]) -> np.ndarray:
    x = np.array(rows, np.float32)
    return np.dstack([x, np.zeros_like(x)])


def test_a_sheet_seen_from_aside_is_not_folded() -> None:
    covered = np.ones((8, 12), bool)
    aside = _places([[0, 2, 4, 8, 16, 26, 37, 49, 60, 70, 80, 90]] * 8)
    folded, steep = edges(aside, covered, cell=2.0)
    assert not folded.any()
    assert steep[:, 4:].all()
    before_another = _places([[0, 2, 4, 6, 8, 10, 70, 72, 74, 76, 78, 80]] * 8)
    folded, steep = edges(before_another, covered, cell=2.0)
    assert np.array_equal(np.flatnonzero(folded[0]), [5, 6])
    assert np.array_equal(folded, steep)


def test_stairs_of_an_outline_become_a_line() -> None:
    y, x = np.mgrid[:120, :80]
    person = np.zeros((120, 80, 4), np.uint8)
    person[x < 30 + 2 * (y // 10)] = (200, 100, 50, 255)
    cells = np.ones((60, 40), np.uint8)
    straighten(person, cells, cell=2.0)
    ends = person[..., 3].sum(1) / 255.0
    line = np.polyval(np.polyfit(y[10:110, 0], ends[10:110], 1), y[10:110, 0])
    assert np.abs(ends[10:110] - line).max() < 0.75  # stairs are off by 1
    full = person[..., 3] == 255
    assert np.abs(person[full] - np.array([200, 100, 50, 255])).max() <= 2


def test_a_thin_face_is_no_outline() -> None:
    """A far eye lies where a turned face is seen from aside, and is thin there; it stays sharp."""
    person = np.full((64, 64, 4), 240, np.uint8)
    person[::2, :, :3] = 20
    before = person.copy()
    straighten(person, np.ones((32, 32), np.uint8), cell=2.0)
    np.testing.assert_array_equal(person, before)
