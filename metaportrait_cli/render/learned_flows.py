"""Flows corrected by the trained warping network."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from metaportrait_cli.face.conditions import GRID
from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.landmark_image import filled_polygon, landmark_image
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.compact_warping import CompactConditions, CompactWarping
from metaportrait_cli.networks.swift.function import SwiftFunction


class LearnedFlows:
    """Makes the correction of each picture's flows; a `CorrectionMaker`.

    Holds the network, frozen.
    """

    def __init__(
        self, network: CompactWarping, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._network = channels_last(network.eval().requires_grad_(False).to(device, dtype))
        self._encode = SwiftFunction(
            lambda image, lines: [network.encode(image, lines)], device=device, dtype=dtype
        )
        self._correct = SwiftFunction(
            lambda source, *driven: [network(source.to(dtype), CompactConditions(*driven))],
            device=device,
            dtype=dtype,
        )

    def __call__(
        self, crop: NDArray[np.uint8], landmarks: NDArray[np.float32], fade: NDArray[np.float32]
    ) -> LearnedCorrection:
        """Of the flows from a crop (S, S, 3) with its landmarks (478, 3); see `CorrectionMaker`."""
        return LearnedCorrection(self, crop, landmarks, fade)

    def encode(self, crop: NDArray[np.uint8], lines: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What depends on the source alone, from its crop (S, S, 3) and landmark image."""
        side = self._network.picture
        small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        return self._encode(_bright(small), _bright(lines))[0]

    def correct(
        self,
        source: NDArray[np.float32],
        prior: NDArray[np.float32],
        *,
        lines: NDArray[np.uint8],
        gap: NDArray[np.uint8],
    ) -> NDArray[np.float32]:
        """The corrected flow (G, G, 2) for a prior of that shape, both in half sides."""
        driven = (_planes(prior), _bright(lines), _bright(gap[..., None]))
        return self._correct(source, *driven)[0][0].transpose(1, 2, 0)


def _planes(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """(H, W, C) → (1, C, H, W)."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)[None]


def _bright(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, C) → (1, C, H, W) in [0, 1]."""
    return _planes(image) * np.float32(1 / 255)


class LearnedCorrection:
    """Of one picture's flows."""

    def __init__(
        self,
        flows: LearnedFlows,
        crop: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        fade: NDArray[np.float32],
    ) -> None:
        self._flows = flows
        self._fade = fade[..., None]
        lines = landmark_image(landmarks, side=crop.shape[0], size=GRID)
        self._source = flows.encode(crop, lines)

    def __call__(self, driven: NDArray[np.float32], found: Correspondence) -> Correspondence:
        """The flow found for driven landmarks (478, 3) in pixels of the crop, put right."""
        unit = np.float32(2 / found.side)
        prior = found.shift * unit
        flow = self._flows.correct(
            self._source,
            prior,
            lines=landmark_image(driven, side=found.side, size=GRID),
            gap=filled_polygon(found.mouth_gap, side=found.side, size=GRID),
        )
        # The correction fades out before the border as the prior does, for pasting back.
        shift = (prior + self._fade * (flow - prior)) / unit
        return Correspondence(shift.astype(np.float32), found.mouth_gap, found.side)
