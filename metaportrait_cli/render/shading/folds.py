"""The folds beside a smile, from the nose down around the mouth's corners.

Just where one comes differs from face to face, so the network, which tells means, draws it wide and
flat: shade, and no fold. How dark it gets there it tells well. So what it tells around the usual
place is gathered in a line that is as narrow as folds are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.render.shading.skin import SIDE, Map

PATH: Final = (
    (0.355, 0.522),
    (0.330, 0.559),
    (0.296, 0.588),
    (0.265, 0.618),
    (0.242, 0.650),
    (0.230, 0.686),
    (0.227, 0.726),
    (0.234, 0.766),
)
"""Where the right cheek's usually is, (x, y) as shares of the map, of smiles of people learnt from:
the line that a face has at rest tells its own fold's place no better."""
BEGUN: Final = (0.0, 0.3)
"""It deepens over this share of its path …"""
ENDING: Final = (0.55, 0.9)
"""… and fades over this one."""
NARROW: Final = 0.95
"""So wide (one sigma, in places of the map) are folds when they are laid on each other."""
AROUND: Final = 2.0
"""So wide the network's shade is asked, and gathered"""
DEEPER: Final = 3.0
"""Times that shade the line is dark before light around it comes back. With 2.5 and 3.5 skin beside
the mouth has 1.03 and 1.08 of the edges of real smiles with teeth, 0.93 and 0.96 of closed ones';
without lines 0.94 and 0.87."""
DEEPEST: Final = 0.25
"""Shade beyond which it gets no darker"""
STEPS: Final = 32


@dataclass(frozen=True, eq=False)
class Folds:
    """Both cheeks' on a source."""

    lines: Map
    """(2, G, G) dark lines with light beside them, on the grid over the source's crop"""
    shade: NDArray[np.float32]
    """(K, 2) how much darker each of the network's patterns makes what is around them"""

    @classmethod
    def of(cls, patterns: Map, seen: Map, places: Map) -> Folds:
        """Of a source's patterns (K, M, M), how surely the map is seen (M, M), and the places on it
        (G, G, 2) of its crop's cells."""
        centres = np.arange(SIDE, dtype=np.float32) + 0.5
        around, depth = _beside(np.stack(np.meshgrid(centres, centres), axis=-1))
        around = seen * depth * np.exp(around / (-2 * AROUND**2))
        around /= np.maximum(around.sum((1, 2), keepdims=True), 1)
        shade = -np.tensordot(patterns, around, axes=([1, 2], [1, 2]))
        square, depth = _beside(places)
        line, light = (np.exp(square / (-2 * width**2)) for width in (NARROW, AROUND))
        lines = depth * (line - NARROW / AROUND * light)
        return cls(lines=lines.astype(np.float32), shade=shade.astype(np.float32))

    def deepen(self, maps: Map, weights: NDArray[np.float32]) -> None:
        """Draws them, in place, into changes of light (T, G, G) that mix the patterns with weights
        (T, K)."""
        depths = DEEPER * np.clip(weights @ self.shade, 0, DEEPEST)
        maps -= np.tensordot(depths, self.lines, axes=1)


def _beside(places: Map) -> tuple[Map, Map]:
    """How far places (H, W, 2) of the map are from either cheek's line, squared, and how deep that
    is beside them: (2, H, W) each."""
    path = _evenly(np.array(PATH, np.float32) * SIDE)
    share = np.linspace(0, 1, STEPS, dtype=np.float32)
    depth = smoothstep((share - BEGUN[0]) / (BEGUN[1] - BEGUN[0]))
    depth = depth * (1 - smoothstep((share - ENDING[0]) / (ENDING[1] - ENDING[0])))
    squares, depths = [], []
    for line in (path, np.stack([SIDE - path[:, 0], path[:, 1]], axis=1)):
        x, y = ((places[None, ..., axis] - line[:, axis, None, None]) ** 2 for axis in (0, 1))
        square = x + y
        squares.append(square.min(0))
        depths.append(depth[square.argmin(0)])
    return np.stack(squares), np.stack(depths)


def _evenly(path: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points (N, 2) of a path, equally far from each other."""
    far = np.concatenate([[0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    at = np.linspace(0, far[-1], STEPS)
    return np.stack([np.interp(at, far, axis) for axis in path.T], axis=1).astype(np.float32)
