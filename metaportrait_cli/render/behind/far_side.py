"""The side of a head that a turned source hides: ear and hair, mirrored from the side that is seen.

The face's own skin is filled by `HiddenSide`; here it is what stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.head_sheet import HeadFrame, HeadSheet, Layout
from metaportrait_cli.face.hidden_side import HiddenSide

if TYPE_CHECKING:
    from metaportrait_cli.render.layered import Layers

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]

TURNED, TOO_FAR = np.radians((10.0, 14.0)), np.radians((35.0, 42.0))
"""Sources that look aside by less than the first show both ears; from the second on, one. Of those
nearly in profile too little is known: what they show is the back of the head."""
SHOWN = (0.05, 0.1)
"""How far, in face widths, hair or ear may be seen beside the far cheek, so that none is missing"""
LEVEL = 0.15
"""… above and below the ears"""
BACK = np.radians(12.0)
"""The other side is there when the head is turned back by so much."""
ABOVE, BELOW, ASIDE = (0.3, 0.6), (0.1, 0.25), 0.2
"""What is taken, in face widths above and below the ears, and to the side from between them"""
LIGHT = 0.3
"""Natural logarithm of how differently the two sides may be lit"""


@dataclass(frozen=True)
class FarSide:
    """Ear and hair that a turned source hides, mirrored from its other side.

    They stand behind the person, and are seen as far as the head is turned back to the front.
    Nothing above or below is taken: a second crown would be seen, or a second collar.
    """

    layers: Layers
    """The mirrored head, without background"""
    yaw: float
    """Where the source looks, in radians to the right"""
    share: float
    """How much it is needed: sources that look ahead show both of their sides"""

    @classmethod
    def of(cls, layers: Layers, crop: Picture) -> FarSide | None:
        """Of a source's crop (S, S, 3) and its layers. `None` if both sides are seen, or are lit
        too differently."""
        points, side = layers.sheet.points, len(crop)
        alpha = layers.person[..., 3].astype(np.float32) / np.float32(255)
        light = HiddenSide(points, crop=crop, grid=side).light
        yaw = _yaw(points)
        share = _rising(abs(yaw), TURNED) * (1 - _rising(abs(yaw), TOO_FAR))
        share *= 1 - _rising(_beside(points, alpha, np.sign(yaw)), SHOWN)
        if share == 0 or np.abs(np.log(light)).max() > LIGHT:
            return None
        mirrored = points[topology.mirror()] * np.array([-1, 1, 1], np.float32)
        mirrored[:, 0] += side
        sheet = HeadSheet(mirrored, cv2.flip(alpha, 1), cv2.flip(layers.sheet.loose, 1))
        head = sheet.head
        y, x = np.mgrid[:side, :side].astype(np.float32) + np.float32(0.5)
        right, up = (axis[:2] / np.linalg.norm(axis[:2]) for axis in head.axes[:2])
        x, y = x - head.middle[0], y - head.middle[1]
        above, aside = ((x * axis[0] + y * axis[1]) / head.width for axis in (up, right))
        there = (1 - smoothstep((above - ABOVE[0]) / (ABOVE[1] - ABOVE[0]))) * (
            1 - smoothstep((-above - BELOW[0]) / (BELOW[1] - BELOW[0]))
        )
        there *= smoothstep(np.sign(yaw) * aside / ASIDE)
        person = layers.person[:, ::-1] * np.append(light, 1).astype(np.float32)
        person = np.rint(person * there[..., None]).clip(0, 255).astype(np.uint8)
        sheet = sheet.only(person[..., 3] > 0)
        mirror = replace(layers, sheet=sheet, person=person, twice=None, instead=None)
        return cls(mirror, yaw, share)

    def before(self, plate: Picture, driven: Points, *, grid: int) -> Picture:
        """A background (S, S, 3) with what is seen before it for driven landmarks (478, 3)."""
        back = np.sign(self.yaw) * (self.yaw - _yaw(driven))
        share = self.share * _rising(back, (0, BACK))
        if share == 0:
            return plate
        layout = self.layers.sheet.layout(driven, side=len(plate), grid=grid)
        cell = len(plate) // grid
        if cell * grid != len(plate):
            layout = replace(layout, cover=np.float32(share) * layout.cover)
            return self.layers.composed(layout, plate=plate)
        # Only its box is composed.
        left, top, wide, high = cv2.boundingRect(np.uint8(layout.cover > 0))
        rows, columns = (
            slice(max(0, top - 1), top + high + 1),
            slice(max(0, left - 1), left + wide + 1),
        )
        part = Layout(
            layout.place[rows, columns],
            np.float32(share) * layout.cover[rows, columns],
            layout.around[rows, columns],
            layout.gap,
        )
        window = tuple(slice(cell * each.start, cell * each.stop) for each in (rows, columns))
        frame = plate.copy()
        frame[window] = self.layers.composed(part, plate=plate[window])
        return frame


def _beside(points: Points, alpha: NDArray[np.float32], side: float) -> float:
    """How far a person (S, S) reaches beyond the cheek to the right (1) or left (-1), in face
    widths, at the height of the ears; face points (478, 3)."""
    head = HeadFrame.of(points)
    along, up = (axis[:2] / np.linalg.norm(axis[:2]) for axis in head.axes[:2])
    y, x = np.nonzero(alpha > 0.5)
    places = (np.column_stack([x, y]) + 0.5 - head.middle[:2]) / head.width
    there = side * places[np.abs(places @ up) < LEVEL] @ along
    cheek = side * (points[: topology.MESH_POINTS, :2] - head.middle[:2]) @ along / head.width
    return float(np.percentile(there, 98) - cheek.max()) if len(there) else 0.0


def _rising(value: float, ramp: Sequence[float] | NDArray[np.float64]) -> float:
    """0 up to the ramp's first value, 1 from its second on."""
    return float(smoothstep((value - ramp[0]) / (ramp[1] - ramp[0])))


def _yaw(points: Points) -> float:
    """Radians by which a face (478, 3) looks aside, positive to the right of the picture."""
    front = HeadFrame.of(points).axes[2]
    return float(np.arctan2(front[0], -front[2]))
