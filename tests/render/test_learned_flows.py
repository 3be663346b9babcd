"""Networks' corrections as they are applied."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.head_sheet import Layout
from metaportrait_cli.networks.swift.function import SwiftFunction
from metaportrait_cli.render.learned_flows import (
    LearnedCorrection,
    LearnedFlows,
    LearnedLayers,
    OfLayers,
)

SIDE = GRID = 128
CELLS = 64
GAP = np.zeros((4, 2), np.float32)


def test_layers_are_moved_evenly(portrait_face: Any) -> None:
    along = np.full((CELLS, CELLS), 0.02, np.float32)
    ragged = along * (1 - 2 * (np.indices(along.shape).sum(0) % 2)).astype(np.float32)
    whole, parts = np.abs(moved(along, portrait_face)), np.abs(moved(ragged, portrait_face))
    np.testing.assert_allclose(whole, 0.02 * SIDE / 2, rtol=1e-3)
    assert parts[4:-4, 4:-4].max() < 0.05 * whole.max()


def test_a_jaw_moves_as_its_landmarks_do(portrait_face: Any) -> None:
    said = np.full((CELLS, CELLS), 0.02, np.float32)
    driven = points_of(portrait_face)
    lips, chin, brows = driven[[17, 152, 9], :2].astype(int).tolist()
    still = Correspondence(np.zeros((GRID, GRID, 2), np.float32), GAP, SIDE)
    flow = one_flow(said)(driven, still).shift[..., 0]
    for x, y in (lips, (chin[0], chin[1] - 4)):
        assert abs(flow[y, x]) < 0.01
    assert flow[brows[1], brows[0]] > 0.99 * 0.02 * SIDE / 2


def points_of(face: Any) -> NDArray[np.float32]:
    return (face.points * (SIDE / 512)).astype(np.float32)


def one_flow(plane: NDArray[np.float32]) -> LearnedCorrection:
    """Of a network that moves places to the right so far."""

    class Flows:
        def encode(self, *_: object) -> list[NDArray[np.float32]]:
            return [np.zeros((1, 1, CELLS, CELLS), np.float32)] * 2

        def correct(self, *_: object) -> list[NDArray[np.float32]]:
            return [np.stack([plane, *np.zeros((2, CELLS, CELLS), np.float32)])[None]]

        def source(self, *_: object) -> list[object]:
            return []

    crop, points = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((478, 3), np.float32)
    fade = np.ones((GRID, GRID), np.float32)
    return LearnedCorrection(cast("LearnedFlows", Flows()), crop, points, fade)


def moved(plane: NDArray[np.float32], face: Any) -> NDArray[np.float32]:
    """Places (GRID, GRID) to the right, where a network says so."""
    said = np.stack([plane, *np.zeros((3, CELLS, CELLS), np.float32)])[None]
    network = OfLayers(
        cast("SwiftFunction", lambda *_: [np.zeros((1, 1, CELLS, CELLS), np.float32)]),
        cast("SwiftFunction", lambda *_: [said]),
    )
    fade, still = np.ones((GRID, GRID), np.float32), np.zeros((GRID, GRID, 2), np.float32)
    layout = Layout(place=still, cover=fade, around=fade, gap=GAP)
    layers = LearnedLayers(network, [], fade, side=SIDE)
    return layers(points_of(face), layout).place[..., 0]
