"""Light on a source's skin as an expression folds it: dark in a nasolabial fold, bright beside it.

A warp moves pixels but leaves their light. What folds and turned skin change of it is told by a
small network as a coarse map in the mesh's own coordinates and multiplied to the warped frame:
grain, pores and colours stay the source's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.topology import MESH_POINTS
from metaportrait_cli.motion.alignment import Floats, similarity, to_frame
from metaportrait_cli.motion.fitting import fit_frames, fit_identity, still_faces
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.swift.function import Function, Running, SwiftFunction
from metaportrait_cli.render.shading.creases import Crease, creases
from metaportrait_cli.render.shading.folds import Folds
from metaportrait_cli.render.shading.skin import SIDE, WIDE, Map, skin_map
from metaportrait_cli.render.shading.tint import Tint
from metaportrait_cli.stages import Once
from metaportrait_cli.weights.shelf import WeightsShelf
from metaportrait_cli.weights.tensors import read_config

if TYPE_CHECKING:
    from metaportrait_cli.networks.shading import ShadingNetwork

SHADING: Final = "shading"
LEGIBLE: Final = 1.4
"""Times what the network darkens is shown: as means do, it draws folds wider and flatter than they
are. By eye, on photos of people that it was not learnt from."""
MOST: Final = 0.5
"""Change of light, a logarithm, that is approached softly."""
GRID: Final = 128
"""Side of the map as it lies on the source's crop"""
MARGIN: Final = 2
"""Cells around a face that surely are as they were"""

Box = tuple[slice, slice]


class Shading:
    """The network, and the face model that tells it expressions."""

    def __init__(
        self,
        network: Callable[[], ShadingNetwork],
        model: MorphableModel,
        *,
        running: Running | None = None,
    ) -> None:
        """The network is made when torch must run it."""
        self.model = model
        made = Once(lambda: network().eval().requires_grad_(False))
        self._patterns = SwiftFunction(lambda: _patterns(made()), running, name="patterns")
        self.weights = SwiftFunction(lambda: _weights(made()), running, name="weights")
        if not (self._patterns.is_known and self.weights.is_known):
            made()  # what is wrong with it is told now

    @classmethod
    def of_file(cls, path: Path) -> Shading:
        """With the network that a file of weights holds. Raises `WeightsError`."""
        side = read_config(path, SHADING).get("side", SIDE)
        if side != SIDE:
            raise WeightsError(
                f"{path}: its shading has a map of {side} places where this version"
                f" has {SIDE}; train it again"
            )
        running = Running(shelf=WeightsShelf(path))
        return cls(partial(_network, path), MorphableModel.bundled(), running=running)

    def open(self, crop: NDArray[np.uint8], points: NDArray[np.float32]) -> SkinLight:
        """Looks at a source's crop (S, S, 3) with its face at points (478, 3) in pixels."""
        model, skin = self.model, skin_map(self.model)
        fitted = fit_frames(model, points[None], fit_identity(model, points[None]))
        light, seen = skin.light(crop, points)
        shown = np.stack([skin.folds(light, seen), seen])
        patterns = self._patterns(shown[None].astype(np.float32))[0][0]
        own = np.concatenate([fitted.expression[0], fitted.angles[0]]).astype(np.float32)
        places = skin.places_on(points, side=len(crop), grid=GRID)
        width = float(np.ptp(points[:MESH_POINTS, 0])) * GRID / len(crop)
        return SkinLight(
            shading=self,
            own=own,
            face=still_faces(model, fitted)[0, :MESH_POINTS],
            patterns=patterns * skin.weight,
            folds=Folds.of(patterns, seen, places),
            tint=Tint.of(crop, places[..., 0] >= 0, wide=WIDE * width / SIDE),
            places=places,
            creases=creases(model, crop, points, grid=GRID),
        )


@dataclass(frozen=True, eq=False)
class SkinLight:
    """One source's skin."""

    shading: Shading
    own: NDArray[np.float32]
    """Its expression and the head's angles, (E + 3,)"""
    face: Floats
    """(468, 3) in the model frame"""
    patterns: Map
    """(K, M, M)"""
    folds: Folds
    tint: Tint
    places: Map
    """(G, G, 2) on the map, of the source's crop"""
    creases: tuple[Crease, ...]

    def changes(self, driven: NDArray[np.float32]) -> Map:
        """What driven faces (T, 478, 3) change of the light on the source's crop: (T, G, G)."""
        model = self.shading.model
        mesh = driven[:, :MESH_POINTS]
        pose = similarity(self.face[None], mesh, model.rigid_weight[None])
        moved = (to_frame(mesh, *pose) - self.face).reshape(len(mesh), -1)
        change = np.zeros((len(mesh), len(self.own)), np.float32)
        change[:, : model.expression_size] = moved @ _expression_operator(model)
        (weights,) = self.shading.weights(self.own[None], change)
        maps = np.tensordot(weights, self.patterns, axes=1)
        maps = np.where(maps < 0, LEGIBLE * maps, maps)
        maps = MOST * np.tanh(maps / MOST)
        centres = self.places - np.float32(0.5)
        found = np.stack([cv2.remap(each, centres, None, cv2.INTER_LINEAR) for each in maps])
        self.folds.deepen(found, weights)
        return found

    def shine(
        self,
        frame: NDArray[np.uint8],
        change: Map,
        flow: Correspondence,
        driven: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """A warped frame (S, S, 3) with its face at driven points (478, 3) in changed light.

        The change (G, G) moves with the skin.
        """
        side = len(frame)
        shift = cv2.resize(flow.shift, (GRID, GRID), interpolation=cv2.INTER_AREA)
        outline = np.rint(driven[:MESH_POINTS, :2] * (GRID / side)).astype(np.int32)
        cells, pixels = _boxes(outline, side)
        places = shift[cells] * np.float32(GRID / side)
        rows, columns = (np.arange(part.start, part.stop, dtype=np.float32) for part in cells)
        places[..., 0] += columns
        places[..., 1] += rows[:, None]
        moved, lightest = (
            cv2.remap(each, places, None, cv2.INTER_LINEAR)
            for each in (self.tint.of_change(change), self.tint.lightest)
        )
        # Beside a turned face lies background that the flow leaves where the source's face was.
        face = np.zeros(moved.shape[:2], np.float32)
        corner = np.array([cells[1].start, cells[0].start], np.int32)
        cv2.fillConvexPoly(face, cv2.convexHull(outline) - corner, 1.0)
        gain = cv2.exp(cv2.multiply(moved, cv2.merge([face] * 3)))
        part = frame[pixels]
        gain, lightest = (
            cv2.resize(each, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            for each in (gain, lightest)
        )
        lit = cv2.multiply(part, gain, dtype=cv2.CV_8U)
        shone = frame.copy()
        shone[pixels] = cv2.min(lit, cv2.max(part, lightest))
        for crease in self.creases:
            crease.open(shone, change, flow, driven)
        return shone


def _boxes(outline: NDArray[np.int32], side: int) -> tuple[Box, Box]:
    """What surely holds points (N, 2) of the map's grid, in its cells, and the same in pixels of a
    frame of `side`."""
    step = GRID // gcd(side, GRID)  # cells that make whole pixels
    low = (outline.min(0) - MARGIN).clip(0, GRID - step) // step
    end = -(-(outline.max(0) + MARGIN + 1).clip(1, GRID) // step)
    cells, pixels = (
        tuple(
            slice(a * unit, b * unit)
            for a, b in zip(low[::-1].tolist(), end[::-1].tolist(), strict=True)
        )
        for unit in (step, side * step // GRID)
    )
    return (cells[0], cells[1]), (pixels[0], pixels[1])


def _network(path: Path) -> ShadingNetwork:
    from metaportrait_cli.networks.shading import ShadingNetwork  # noqa: PLC0415  torch
    from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

    # Stored at half precision; a CPU is slow with it.
    return load_network(ShadingNetwork, path, part=SHADING).float()


def _patterns(network: ShadingNetwork) -> Function:
    return lambda light: [network.patterns(light)]


def _weights(network: ShadingNetwork) -> Function:
    return lambda own, change: [network.weights(own, change)]


@lru_cache(maxsize=2)
def _expression_operator(model: MorphableModel) -> Floats:
    """(3M, E) from displacements of the mesh to the expression that makes them most probable."""
    rows = model.expression_basis.reshape(model.expression_size, -1)
    weighted = rows * np.repeat(model.shape_weight, 3) / model.noise**2
    normal = weighted @ rows.T + np.eye(len(rows), dtype=np.float32)
    return np.linalg.solve(normal, weighted).T.astype(np.float32)
