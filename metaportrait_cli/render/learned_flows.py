"""Motion corrected by the trained warping networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.conditions import GRID
from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.head_sheet import Layout
from metaportrait_cli.face.landmark_image import filled_polygon, landmark_image
from metaportrait_cli.networks.swift.function import Function, Running, SwiftFunction
from metaportrait_cli.render.flows import LayoutCorrection
from metaportrait_cli.stages import Once

if TYPE_CHECKING:
    from torch import Tensor

    from metaportrait_cli.networks.compact_warping import CompactWarping
    from metaportrait_cli.networks.layered_warping import LayeredWarping

Points = NDArray[np.float32]
Grid = NDArray[np.float32]

EVEN = 1.5
"""Cells of the network of layers over which its motion is evened: what it says of single ones
stretches and folds heads that turn, and makes no picture truer"""

JAWS = topology.ring("face_oval")[9:28]
"""The face's outline from one ear over the chin to the other"""


class LearnedFlows:
    """Makes the corrections of each picture, see `Corrections`.

    By two networks, that of one flow and that of layers; they are made when torch must run them.
    """

    def __init__(
        self,
        network: Callable[[], CompactWarping],
        layered: Callable[[], LayeredWarping],
        *,
        picture: int,
        running: Running,
        running_layered: Running,
    ) -> None:
        """`picture` is the side of the pictures that the networks see."""
        self.picture = picture
        one = Once(lambda: running.placed(network()))
        self.encode = SwiftFunction(lambda: _encoding(one()), running, name="flow's source")
        self.correct = SwiftFunction(lambda: _correcting(one()), running, name="flow")
        other = Once(lambda: running_layered.placed(layered()))
        self.layers = OfLayers(
            SwiftFunction(
                lambda: _encoding_layers(other()), running_layered, name="layers' source"
            ),
            SwiftFunction(lambda: _correcting_layers(other()), running_layered, name="layers"),
        )

    @property
    def is_known(self) -> bool:
        """Whether torch has run them before; those of layers run only when a head turns."""
        return self.encode.is_known and self.correct.is_known

    def of_flow(self, crop: NDArray[np.uint8], landmarks: Points, fade: Grid) -> LearnedCorrection:
        """See `Corrections`."""
        return LearnedCorrection(self, crop, landmarks, fade)

    def of_layers(
        self,
        crop: NDArray[np.uint8],
        landmarks: Points,
        fade: Grid,
        *,
        known: Grid,
        plate: NDArray[np.uint8],
    ) -> LayoutCorrection:
        """See `Corrections`."""
        return LearnedLayers(
            self.layers,
            [*self.source(crop, landmarks), _planes(known), _bright(self.small(plate))],
            fade,
            side=len(crop),
        )

    def source(self, crop: NDArray[np.uint8], landmarks: Points) -> list[Grid]:
        """A crop (S, S, 3) and its landmarks (478, 3) as networks see them."""
        lines = landmark_image(landmarks, side=len(crop), size=GRID)
        return [_bright(self.small(crop)), _bright(lines)]

    def small(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """At the networks' size."""
        return cv2.resize(picture, (self.picture, self.picture), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class OfLayers:
    """The network of layers: what it makes of a source once, and of a frame."""

    encode: SwiftFunction
    correct: SwiftFunction


class LearnedCorrection:
    """Of one picture's flows."""

    def __init__(
        self, flows: LearnedFlows, crop: NDArray[np.uint8], landmarks: Points, fade: Grid
    ) -> None:
        self._flows = flows
        self._fade = fade
        self._fade_to_pixels = fade * np.float32(len(crop) / 2)
        self._source, self._entered = flows.encode(*flows.source(crop, landmarks))
        self._size = self._source.shape[-1]

    def __call__(self, driven: Points, found: Correspondence) -> Correspondence:
        """The flow found for driven landmarks (478, 3) in pixels of the crop, put right."""
        asked = _seen(found.shift, driven, found.mouth_gap, side=found.side, size=self._size)
        (said,) = self._flows.correct(self._source, self._entered, *asked)
        free = _above_jaws(driven, side=found.side, size=said.shape[-1])
        x, y, hold = (_enlarged(plane * free, len(self._fade)) for plane in said[0, :3])
        # The correction fades out before the border as the prior does, for pasting back.
        keeps = 1 - self._fade * hold
        shift = [
            plane * keeps + change * self._fade_to_pixels
            for plane, change in zip(cv2.split(found.shift), (x, y), strict=True)
        ]
        return Correspondence(cv2.merge(shift), found.mouth_gap, found.side)


class LearnedLayers:
    """Of one picture's layers; `source` as the network takes it."""

    def __init__(self, network: OfLayers, source: Sequence[Grid], fade: Grid, *, side: int) -> None:
        self._correct = network.correct
        self._source = network.encode(*source)
        self._fade = fade
        self._side = side

    def __call__(self, driven: Points, found: Layout) -> Layout:
        """The layout found for driven landmarks (478, 3) in pixels of the crop, put right."""
        size, shift = self._source[0].shape[-1], found.shift(self._side)
        asked = _seen(shift, driven, found.gap, side=self._side, size=size)
        cover = _shrunk(np.minimum(found.cover, 1), size)
        (said,) = self._correct(*self._source, *asked, cover[None, None])
        even = [cv2.GaussianBlur(plane, (0, 0), EVEN) for plane in said[0][:3]]
        x, y, hold, hidden = (_enlarged(plane, len(self._fade)) for plane in (*even, said[0][3]))
        change = [
            self._fade * (plane * np.float32(self._side / 2) - hold * own)
            for plane, own in zip((x, y), cv2.split(shift), strict=True)
        ]
        place = cv2.add(found.place, cv2.merge(change))
        seen = np.asarray(found.cover * (1 - self._fade * hidden.clip(0, 1)), np.float32)
        return replace(found, place=place, cover=seen)


def _encoding(network: CompactWarping) -> Function:
    def encoded(image: Tensor, lines: Tensor) -> list[Tensor]:
        source = network.encode(image, lines)
        return [source[:, :-3], network.entered(source)]

    return encoded


def _correcting(network: CompactWarping) -> Function:
    from metaportrait_cli.networks.compact_warping import (  # noqa: PLC0415  torch
        CompactConditions,
        in_half_sides,
    )

    dtype = network.head.weight.dtype

    def correction(source: Tensor, entered: Tensor, *driven: Tensor) -> list[Tensor]:
        moving = network.moving(source.to(dtype), CompactConditions(*driven))
        # The source's planes come first: those that move, and its landmarks.
        entered = entered.to(dtype) + network.entered(moving, first=source.shape[1] + 3)
        return [in_half_sides(network.onwards(entered))]

    return correction


def _encoding_layers(network: LayeredWarping) -> Function:
    return lambda *source: [network.encode(*source[:2]), network.encode_layers(*source[2:])]


def _correcting_layers(network: LayeredWarping) -> Function:
    from metaportrait_cli.networks.compact_warping import in_half_sides  # noqa: PLC0415  torch
    from metaportrait_cli.networks.layered_warping import LayeredConditions  # noqa: PLC0415

    dtype = network.head.weight.dtype
    return lambda source, layers, *driven: [
        in_half_sides(network.said(source.to(dtype), layers.to(dtype), LayeredConditions(*driven)))
    ]


def _seen(shift: Grid, driven: Points, gap: Points, *, side: int, size: int) -> list[Grid]:
    """What networks see of a frame: its prior shift (G, G, 2) in pixels of a crop of `side`, in
    half sides, and landmarks and mouth as they are drawn. All they see and say is coarse, of `size`
    cells a side: only that goes to them, and back."""
    prior = _shrunk(shift, size) * np.float32(2 / side)
    lines, inside = _drawings(driven, gap, side=side)
    drawn = cv2.merge([*cv2.split(lines), inside]).astype(np.float32)
    drawn = _shrunk(drawn, size) * np.float32(1 / 255)
    return [each.transpose(2, 0, 1)[None] for each in (prior, drawn[..., :3], drawn[..., 3:])]


def _drawings(
    driven: Points, gap: Points, *, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Landmarks (478, 3) and the polygon of the mouth's gap, drawn: (GRID, GRID, 3 and none)."""
    lines = landmark_image(driven, side=side, size=GRID)
    return lines, filled_polygon(gap, side=side, size=GRID)


def _above_jaws(driven: Points, *, side: int, size: int) -> Grid:
    """Share of each cell (size, size) that the lower half of the face (478, 3) doesn't cover.

    There landmarks tell all of the motion of a face that hardly turns. What the network changes of
    it holds chins and the corners of mouths back. What that of layers changes makes turned jaws
    slender: without it they are heavy.
    """
    jaws = filled_polygon(driven[JAWS, :2], side=side, size=GRID)
    return 1 - _shrunk(jaws.astype(np.float32), size) * np.float32(1 / 255)


def _shrunk(picture: Grid, size: int) -> Grid:
    """(G, G, C) as means, (size, size, C)."""
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def _enlarged(picture: Grid, size: int) -> Grid:
    """(H, W) with what lies between, (size, size)."""
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)


def _planes(image: NDArray[np.generic]) -> Grid:
    """(H, W, C) → (1, C, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)[None]


def _bright(image: NDArray[np.uint8]) -> Grid:
    """(H, W, C) → (1, C, H, W) in [0, 1]."""
    return _planes(image) * np.float32(1 / 255)
