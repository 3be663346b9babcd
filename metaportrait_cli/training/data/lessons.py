"""What a student is taught with: a teacher's pictures of one person, and the landmarks they are of.

A folder of shards, `lessons-0000.safetensors` and on, each written whole or not at all. Tensors, n
pictures: `points` (n, 478, 3) float32, in sides of the crop; `frame.0`, …: uint8, a JPEG of the
crop each; and `flow` (n, G, G, 2) float16, where the teacher knows from which place of the person's
picture it moved what it shows, backward, in half sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError
from metaportrait_cli.media.outputs import atomic_output

STEM = "lessons-"
FLOW_SIDE = 64
"""Side of the flows that are kept"""
JPEG_QUALITY = 95


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is, or would be."""
    return folder / f"{STEM}{number:04d}.safetensors"


def write_shard(
    path: Path,
    points: NDArray[np.float32],
    frames: NDArray[np.uint8],
    flows: NDArray[np.float32] | None,
) -> None:
    """Writes pictures (n, S, S, 3) of points (n, 478, 3); see the module for units."""
    settings = [
        *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]
    arrays: dict[str, NDArray] = {"points": np.ascontiguousarray(points, np.float32)}
    for number, frame in enumerate(frames):
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings)
        arrays[f"frame.{number}"] = encoded.ravel()
    if flows is not None:
        arrays["flow"] = np.ascontiguousarray(flows, np.float16)
    with atomic_output(path) as partial:
        save_file(arrays, partial)


@dataclass(frozen=True)
class Lesson:
    """One picture, or a batch of them."""

    picture: Tensor
    """(3, S, S) uint8"""
    points: Tensor
    """(478, 3), in sides of the crop"""

    @classmethod
    def batch(cls, lessons: Sequence[Lesson]) -> Self:
        """All of them along a first axis."""
        return cls(
            torch.stack([each.picture for each in lessons]),
            torch.stack([each.points for each in lessons]),
        )

    def to(self, device: torch.device) -> Lesson:
        """On the device."""
        return Lesson(
            self.picture.to(device, non_blocking=True), self.points.to(device, non_blocking=True)
        )


class Lessons(Dataset[Lesson]):
    """All of a folder's, in order."""

    def __init__(self, folder: Path) -> None:
        """Raises `MediaError` if there are none, or they are damaged."""
        paths = sorted(folder.glob(f"{STEM}*.safetensors"))
        if not paths:
            raise MediaError(f"{folder}: no lessons in it; make them with: metaportrait distill")
        points, flows, self._frames = [], [], []
        for path in paths:
            try:
                arrays = load_file(path)
                points.append(arrays["points"])
                self._frames += [arrays[f"frame.{k}"] for k in range(len(points[-1]))]
                flows.append(arrays.get("flow"))
            except (SafetensorError, OSError, KeyError) as error:
                raise MediaError(f"{path}: damaged ({error}); delete it, it is made anew") from None
        self.kept = len(points[-1]) if len(points) > 1 else 0
        """How many at the end are for judging: the last shard's, a motion of their own"""
        self.points: NDArray[np.float32] = np.concatenate(points)
        self.flows: NDArray[np.float16] | None = None
        known = [flow for flow in flows if flow is not None]
        if len(known) == len(flows):
            self.flows = np.concatenate(known)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Lesson:
        decoded = cv2.imdecode(self._frames[index], cv2.IMREAD_COLOR)
        planes = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)
        return Lesson(
            torch.from_numpy(np.ascontiguousarray(planes)), torch.from_numpy(self.points[index])
        )
