"""A student on a CPU: its convolutions by ncnn, its pictures moved and mixed by OpenCV.

The same picture as `networks.student.Student` paints, to two grey levels, in half of torch's time,
and from the second run with a file on without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.networks.swift.function import Function, Running, SwiftFunction
from metaportrait_cli.render.protocol import Frames
from metaportrait_cli.stages import side_by_side
from metaportrait_cli.weights.tensors import opened, read_arrays

Array = NDArray[np.float32]
PART: Final = "student"
FARTHEST: Final = 1e3
"""Half sides: heads are no farther away; OpenCV counts pixels with 32 bits"""
BORDER: Final = cv2.BORDER_REPLICATE


def part_of(number: int) -> str:
    """Where a file has what is of one person alone."""
    return f"{PART}{number}" if number else PART


class SwiftStudent:
    """A student's file, ready to paint."""

    def __init__(
        self, path: Path, running: Running, make: Callable[[], Function], *, part: str = PART
    ) -> None:
        """`make` gives the network's maps and paint of what `observed` gives, by torch; `part` is
        the person's."""
        with opened(path, framework="np") as file:
            pictures = file.get_tensor(f"{part}.pictures")  # (P + 1, 3, S, S)
        self._own = np.ascontiguousarray(pictures[0].transpose(1, 2, 0))
        # Of numbers, for each rounding in between is flicker; and with a fourth channel: OpenCV
        # moves and mixes four numbers in half of the time of three bytes.
        self._pictures = np.stack([cv2.merge([*planes, planes[0]]) for planes in pictures])
        self._pictures = self._pictures.astype(np.float32)
        (self._aligner,) = read_arrays(path, part, ["aligner"])
        self._still = SwiftFunction(make, running, name=part)

    @property
    def own(self) -> NDArray[np.uint8]:
        """The person's own picture (S, S, 3)."""
        return self._own

    @property
    def is_known(self) -> bool:
        """Whether it can probably be run without torch."""
        return self._still.is_known

    def __call__(self, landmarks: Array) -> Frames:
        """Pictures (T, S, S, 3) of landmarks (T, 478, 3) in sides of the crop."""
        head, *seen = observed(landmarks, self._aligner)
        maps, paint = self._still(*seen)
        return np.stack(side_by_side(self._painted, list(zip(head, maps, paint, strict=True))))

    def _painted(self, found: tuple[Array, Array, Array]) -> NDArray[np.uint8]:
        """The picture (S, S, 3) of A (3, 2), maps (M, F, F) and paint (3, 2 F, 2 F)."""
        head, maps, paint = found
        size, count = self._pictures.shape[1], len(self._pictures) - 1
        maps = placed(maps, head)
        here = grid(len(maps))
        rigid = maps[..., -1:] * (here @ head[:2] + head[2] - here)
        # As in the network places are enlarged, not motion; here they are pixels.
        places = maps[..., : 2 * count] + np.tile(here + rigid, count)
        places = np.nan_to_num((places + 1) * (size / 2) - 0.5)
        shares = np.nan_to_num(maps[..., 2 * count : -1])
        mixed = self._pictures[0]
        for number, picture in enumerate(self._pictures):
            shown = picture
            if number < count:
                part = enlarged(places[..., 2 * number : 2 * number + 2], size)
                shown = cv2.remap(picture, part, None, cv2.INTER_LINEAR, borderMode=BORDER)
            if number:
                share = sigmoid(enlarged(shares[..., number - 1], size))
                shown = cv2.blendLinear(mixed, shown, 1 - share, share)
            mixed = shown
        mixed = cv2.cvtColor(mixed, cv2.COLOR_RGBA2RGB)
        more = enlarged(255 * placed(paint, head), size)
        return np.asarray(cv2.add(mixed, more, dtype=cv2.CV_8U), np.uint8)


def observed(landmarks: Array, aligner: Array) -> tuple[Array, Array, Array, Array]:
    """`Student.observed`: A (T, 3, 2), places in its frame, depths, and the six numbers of the
    head, all (T, …)."""
    count = len(landmarks)
    points = 2 * landmarks[..., :2] - 1
    moved = aligner @ points  # (T, 3, 2)
    (a, b), (c, d) = (moved[:, row].T for row in (0, 1))
    determinant = a * d - b * c
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.stack([d, -b, -c, a], -1).reshape(-1, 2, 2) / determinant[:, None, None]
        still = (points - moved[:, 2:]) @ inverse
        depth = landmarks[..., 2] / np.sqrt(np.abs(determinant))[:, None]
        head = np.concatenate([inverse, -moved[:, 2:] @ inverse], axis=1)
    head = np.clip(np.nan_to_num(head), -FARTHEST, FARTHEST)
    return head, still.reshape(count, -1), depth, moved.reshape(count, -1)


def placed(maps: Array, head: Array) -> Array:
    """Maps (C, F, F) of a head that stands still where it is, under A (3, 2): (F, F, C)."""
    half = maps.shape[-1] / 2
    linear = head[:2].T
    # Pixel i of N has its centre at (2 i + 1) / N - 1.
    start = linear @ np.full(2, 0.5 - half) + half * head[2] + half - 0.5
    return np.asarray(
        cv2.warpAffine(
            cv2.merge(list(maps)),
            np.concatenate([linear, start[:, None]], axis=1).astype(np.float64),
            maps.shape[1:],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=BORDER,
        )
    )


def grid(size: int) -> Array:
    """Places (S, S, 2) of pixels, in half sides from the middle."""
    centres = (np.arange(size, dtype=np.float32) * 2 + 1) / size - 1
    return np.stack(np.meshgrid(centres, centres), axis=-1).astype(np.float32)


def enlarged(maps: Array, size: int) -> Array:
    """Maps (F, F, …) at (size, size, …), bilinearly."""
    return np.asarray(cv2.resize(np.ascontiguousarray(maps), (size, size)))


def sigmoid(x: Array) -> Array:
    """From logits to shares."""
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)
