"""Training samples from prepared shards: two pictures of one clip, and the motion between them.

Sample number `i` of a data set is a function of seed and `i` alone, whatever process draws it: a
resumed run continues with the samples it would have had.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.conditions import GRID, Conditioner
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.training.data.shards import ClipRecord, Shard, read_index, read_shard
from metaportrait_cli.training.data.teacher import teacher_flow

FADE_SHARE = 0.12  # as in the analytic renderer
GAIN_RANGE, CHANNEL_GAIN_RANGE = 0.15, 0.04
# Pictures of one clip whose points lie farther apart (mean, share of the side) are mostly cuts.
FARTHEST_PAIR = 0.12
CANDIDATES = 3
GENERATED_WEIGHT = 0.3

Sample = dict[str, Tensor]


@dataclass(frozen=True)
class Faces:
    """Prepared pictures (N, S, S, 3), their points (N, 478, 3) in pixels, and which are one clip.

    `ranges` gives each clip's first and past-the-last picture.
    """

    images: NDArray[np.uint8]
    points: NDArray[np.float32]
    clips: tuple[ClipRecord, ...]
    ranges: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return self.images.shape[1]

    @classmethod
    def load(cls, folder: Path) -> Faces:
        """Decodes all shards into memory."""
        size, stems = read_index(folder)
        return cls._of([read_shard(stem, size=size) for stem in stems])

    @classmethod
    def shards(cls, folder: Path) -> Iterator[Faces]:
        """One shard after the other, for what needn't have all in memory."""
        size, stems = read_index(folder)
        for stem in stems:
            yield cls._of([read_shard(stem, size=size)])

    @classmethod
    def _of(cls, shards: Sequence[Shard]) -> Faces:
        clips = tuple(clip for shard in shards for clip in shard.clips)
        ends = np.cumsum([clip.count for clip in clips])
        return cls(
            images=np.concatenate([shard.images for shard in shards]),
            points=np.concatenate([shard.points for shard in shards]),
            clips=clips,
            ranges=tuple((int(e) - c.count, int(e)) for c, e in zip(clips, ends, strict=True)),
        )


def is_held_out(identity: str, *, share: float) -> bool:
    """Whether a person is kept for judging checkpoints; the same answer for ever."""
    number = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big")
    return number / 2**32 < share


def kept_aside(people: Iterable[str], *, share: float) -> tuple[list[str], list[str]]:
    """The people to learn from, and those that are held out."""
    named = sorted(set(people))
    kept = [person for person in named if is_held_out(person, share=share)]
    return sorted(set(named) - set(kept)), kept


def facts_of(
    faces: Faces, folder: str, *, people: Sequence[str], kept: Sequence[str]
) -> dict[str, Any]:
    """What a card says of pictures learnt from, with the people `kept` aside."""
    return {
        "folder": folder,
        "pictures": len(faces.images),
        "clips": len(faces.clips),
        "people": len(people) + len(kept),
        "held_out": kept,
    }


class PairDataset(Dataset[Sample]):
    """Source and target out of one clip; the target is the one of three draws that differs most.

    Tensors of a sample, S the size of the pictures, G that of the conditions: `source`, `target`
    (3, S, S), `source_lines`, `lines` (3, G, G), `gap` and `trust` (1, G, G) uint8 in [0, 255];
    `flow` and `teacher` (2, G, G) float32 in half sides; `points` (478, 3) float32 in pixels.
    """

    def __init__(self, faces: Faces, *, people: Sequence[str], length: int, seed: int) -> None:
        allowed = set(people)
        self._faces = faces
        self._length = length
        self._seed = seed
        self._clips: dict[str, list[int]] = defaultdict(list)
        for number, clip in enumerate(faces.clips):
            if clip.identity in allowed and clip.count > 1:
                self._clips[clip.identity].append(number)
        if not self._clips:
            raise MediaError("no clip with two different pictures of a face in the prepared data")
        self._people = sorted(self._clips)
        weights = [
            max(GENERATED_WEIGHT if faces.clips[n].origin == "generated" else 1.0 for n in numbers)
            for numbers in (self._clips[person] for person in self._people)
        ]
        self._weights = np.array(weights) / np.sum(weights)
        self._fade = border_fade(
            Crop(0, 0, faces.size), width=faces.size, height=faces.size, size=GRID, share=FADE_SHARE
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        draw = np.random.default_rng((self._seed, index))
        start, end = self._faces.ranges[self._clip(draw)]
        source, *others = start + draw.permutation(end - start)[: 1 + CANDIDATES]
        return self._sample(draw, int(source), _farthest(self._faces, int(source), others))

    def _clip(self, draw: np.random.Generator) -> int:
        person = self._people[draw.choice(len(self._people), p=self._weights)]
        numbers = self._clips[person]
        return numbers[draw.integers(len(numbers))]

    def _sample(self, draw: np.random.Generator, source: int, target: int) -> Sample:
        """Pictures by number, mirrored half of the time, in varied light."""
        size = self._faces.size
        images = [self._faces.images[n] for n in (source, target)]
        points = [self._faces.points[n] for n in (source, target)]
        if draw.random() < 0.5:
            images = [image[:, ::-1] for image in images]
            points = [_mirrored(each, size) for each in points]
        curves = np.clip(np.arange(256)[:, None] * varied_light(draw), 0, 255).astype(np.uint8)
        images = [curves[image, np.arange(3)] for image in images]
        return as_sample(
            Conditioner(points[0], side=size, fade=self._fade),
            source=images[0],
            target=images[1],
            points=points[1],
        )


def one_shot(faces: Faces, clip: int, source: int) -> list[int]:
    """Pictures of a clip, by number, that are hardly of another shot than the source."""
    start, end = faces.ranges[clip]
    points, most = faces.points, FARTHEST_PAIR * faces.size
    others = (n for n in range(start, end) if n != source)
    return [n for n in others if _difference(points[source], points[n]) <= most]


def _farthest(faces: Faces, source: int, others: Iterable[int]) -> int:
    points = faces.points
    apart = {int(o): _difference(points[source], points[o]) for o in others}
    near = [o for o in apart if apart[o] <= FARTHEST_PAIR * faces.size]
    return max(near, key=apart.__getitem__) if near else min(apart, key=apart.__getitem__)


def varied_light(draw: np.random.Generator) -> NDArray[np.float64]:
    """What colours are multiplied by (3,)."""
    gain = draw.uniform(1 - GAIN_RANGE, 1 + GAIN_RANGE)
    return gain * draw.uniform(1 - CHANNEL_GAIN_RANGE, 1 + CHANNEL_GAIN_RANGE, 3)


def held_out_samples(faces: Faces, *, people: Sequence[str], most: int) -> list[Sample]:
    """First picture → later ones of each clip, unaltered, at most `most` in all, people in turn."""
    allowed = set(people)
    fade = border_fade(
        Crop(0, 0, faces.size), width=faces.size, height=faces.size, size=GRID, share=FADE_SHARE
    )
    ranges = [
        span
        for clip, span in zip(faces.clips, faces.ranges, strict=True)
        if clip.identity in allowed and clip.count > 1
    ]
    pairs = [
        (start, start + k)
        for k in range(1, max((end - start for start, end in ranges), default=0))
        for start, end in ranges
        if start + k < end
    ]
    return [
        as_sample(
            Conditioner(faces.points[source], side=faces.size, fade=fade),
            source=faces.images[source],
            target=faces.images[target],
            points=faces.points[target],
        )
        for source, target in pairs[:most]
    ]


def as_sample(
    conditioner: Conditioner,
    *,
    source: NDArray[np.uint8],
    target: NDArray[np.uint8],
    points: NDArray[np.float32],
) -> Sample:
    """Tensors of one sample, see `PairDataset`."""
    condition = conditioner(points)
    teacher, trust = teacher_flow(source, target, condition.flow)
    return {
        "source": planes(source),
        "target": planes(target),
        "source_lines": planes(conditioner.source_lines),
        "lines": planes(condition.lines),
        "gap": torch.from_numpy(condition.gap)[None],
        "flow": planes(condition.flow),
        "teacher": planes(teacher),
        "trust": torch.from_numpy(trust)[None],
        "points": torch.from_numpy(points.astype(np.float32)),
    }


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a[:, :2] - b[:, :2]).mean())


def _mirrored(points: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return (points * (-1, 1, 1) + (size, 0, 0)).astype(np.float32)


def planes(image: NDArray[np.generic]) -> Tensor:
    """(H, W, C) → (C, H, W)"""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
