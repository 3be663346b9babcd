"""Networks' corrections as they are applied."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.head_sheet import Layout
from metaportrait_cli.networks.swift.function import SwiftFunction
from metaportrait_cli.render.learned_flows import LearnedLayers, OfLayers

SIDE = GRID = 128
CELLS = 64


def test_layers_are_moved_evenly(portrait_face: Any) -> None:
    along = np.full((CELLS, CELLS), 0.02, np.float32)
    ragged = along * (1 - 2 * (np.indices(along.shape).sum(0) % 2)).astype(np.float32)
    whole, parts = np.abs(moved(along, portrait_face)), np.abs(moved(ragged, portrait_face))
    np.testing.assert_allclose(whole, 0.02 * SIDE / 2, rtol=1e-3)
    assert parts[4:-4, 4:-4].max() < 0.05 * whole.max()


def moved(plane: NDArray[np.float32], face: Any) -> NDArray[np.float32]:
    """Places (GRID, GRID) to the right, where a network says so."""
    said = np.stack([plane, *np.zeros((3, CELLS, CELLS), np.float32)])[None]
    network = OfLayers(
        cast("SwiftFunction", lambda *_: [np.zeros((1, 1, CELLS, CELLS), np.float32)]),
        cast("SwiftFunction", lambda *_: [said]),
    )
    fade, still = np.ones((GRID, GRID), np.float32), np.zeros((GRID, GRID, 2), np.float32)
    layout = Layout(place=still, cover=fade, around=fade, gap=np.zeros((4, 2), np.float32))
    layers = LearnedLayers(network, [], fade, side=SIDE)
    return layers((face.points * (SIDE / 512)).astype(np.float32), layout).place[..., 0]
