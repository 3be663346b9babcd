"""Motion corrected by the trained warping networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.face.conditions import GRID
from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.head_sheet import Layout
from metaportrait_cli.face.landmark_image import filled_polygon, landmark_image
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.compact_warping import CompactConditions, CompactWarping
from metaportrait_cli.networks.layered_warping import LayeredConditions, LayeredWarping
from metaportrait_cli.networks.swift.function import SwiftFunction
from metaportrait_cli.render.flows import LayoutCorrection

Points = NDArray[np.float32]
Grid = NDArray[np.float32]


class LearnedFlows:
    """Makes the corrections of each picture, see `Corrections`.

    Holds the networks, frozen: that of one flow, and that of layers where a file has one.
    """

    def __init__(
        self,
        network: CompactWarping,
        layered: LayeredWarping | None = None,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        def of(function: Callable[..., Sequence[Tensor]]) -> SwiftFunction:
            return SwiftFunction(function, device=device, dtype=dtype)

        network = channels_last(network.eval().requires_grad_(False).to(device, dtype))
        self.picture = network.picture
        self.encode = of(lambda image, lines: [network.encode(image, lines)])
        self.correct = of(lambda source, *driven: [network(source, CompactConditions(*driven))])
        self.layers: OfLayers | None = None
        if layered is not None:
            net = channels_last(layered.eval().requires_grad_(False).to(device, dtype))
            self.layers = OfLayers(
                encode=of(
                    lambda *source: [net.encode(*source[:2]), net.encode_layers(*source[2:])]
                ),
                correct=of(
                    lambda source, layers, *driven: net.layered(
                        source, layers, LayeredConditions(*driven)
                    )
                ),
            )

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
        if self.layers is None:
            return self._of_one_flow(crop, landmarks, fade)
        return LearnedLayers(
            self.layers,
            [*self.source(crop, landmarks), _planes(known), _bright(self.small(plate))],
            fade,
            side=len(crop),
        )

    def _of_one_flow(
        self, crop: NDArray[np.uint8], landmarks: Points, fade: Grid
    ) -> LayoutCorrection:
        """What the other network says of layers: not what it learnt, but better than nothing."""
        correct, side = self.of_flow(crop, landmarks, fade), len(crop)

        def corrected(driven: Points, found: Layout) -> Layout:
            prior = found.shift(side)
            flow = correct(driven, Correspondence(prior, found.gap, side))
            place = (found.place + flow.shift - prior).astype(np.float32)
            return replace(found, place=place)

        return corrected

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
        self._fade = fade[..., None]
        (self._source,) = flows.encode(*flows.source(crop, landmarks))

    def __call__(self, driven: Points, found: Correspondence) -> Correspondence:
        """The flow found for driven landmarks (478, 3) in pixels of the crop, put right."""
        unit = np.float32(2 / found.side)
        prior = found.shift * unit
        asked = _conditions(prior, driven, found.mouth_gap, side=found.side)
        (flow,) = map(_grid, self._flows.correct(self._source, *asked))
        # The correction fades out before the border as the prior does, for pasting back.
        shift = (prior + self._fade * (flow - prior)) / unit
        return Correspondence(shift.astype(np.float32), found.mouth_gap, found.side)


class LearnedLayers:
    """Of one picture's layers; `source` as the network takes it."""

    def __init__(self, network: OfLayers, source: Sequence[Grid], fade: Grid, *, side: int) -> None:
        self._correct = network.correct
        self._source = network.encode(*source)
        self._fade = fade
        self._side = side

    def __call__(self, driven: Points, found: Layout) -> Layout:
        """The layout found for driven landmarks (478, 3) in pixels of the crop, put right."""
        unit = np.float32(2 / self._side)
        prior = found.shift(self._side) * unit
        asked = _conditions(prior, driven, found.gap, side=self._side)
        cover = np.minimum(found.cover, 1)
        flow, shown = map(_grid, self._correct(*self._source, *asked, cover[None, None]))
        place = found.place + self._fade[..., None] * (flow - prior) / unit
        seen = found.cover * (1 - self._fade * (1 - shown[..., 0]))
        return replace(found, place=place.astype(np.float32), cover=seen.astype(np.float32))


def _conditions(prior: Grid, driven: Points, gap: Points, *, side: int) -> list[Grid]:
    """Of a prior flow (G, G, 2) in half sides, and driven landmarks in pixels of the crop."""
    lines = landmark_image(driven, side=side, size=GRID)
    mouth = filled_polygon(gap, side=side, size=GRID)
    return [_planes(prior), _bright(lines), _bright(mouth[..., None])]


def _planes(image: NDArray[np.generic]) -> Grid:
    """(H, W, C) → (1, C, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)[None]


def _bright(image: NDArray[np.uint8]) -> Grid:
    """(H, W, C) → (1, C, H, W) in [0, 1]."""
    return _planes(image) * np.float32(1 / 255)


def _grid(planes: Grid) -> Grid:
    """(1, C, G, G) → (G, G, C)"""
    return planes[0].transpose(1, 2, 0)
