"""Training samples from prepared shards: who is moved how, and how it should look then.

Sample number `i` of a data set is a function of seed and `i` alone, whatever process draws it: a
resumed run continues with the samples it would have had.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face import topology
from metaportrait_cli.face.conditions import GRID, Conditioner
from metaportrait_cli.face.correspondence import moved_by
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.identity import chip_to_picture
from metaportrait_cli.face.landmark_image import filled_polygon
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.retarget import Retargeter
from metaportrait_cli.training.data.shards import ClipRecord, Shard, read_index, read_shard
from metaportrait_cli.training.data.teacher import teacher_flow

FADE_SHARE = 0.12  # as in the analytic renderer
REGION_MARGIN = 0.03  # of the crop, around lids and lips
GAIN_RANGE, CHANNEL_GAIN_RANGE = 0.15, 0.04
# Pictures of one clip whose points lie farther apart (mean, share of the side) are mostly cuts.
FARTHEST_PAIR = 0.12
CANDIDATES = 3
GENERATED_WEIGHT = 0.3
MOTION_STRENGTH = (0.5, 1.3)

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


class PairDataset(Dataset[Sample]):
    """Source and target of one person, or a source with somebody else's motion.

    Three kinds of samples, in shares `photo` and `cross`, the rest being the first:

    - two pictures of one clip, the target the one of three draws that differs most;
    - a photo as target, its source being the photo itself moved by the analytic warp;
    - cross-identity: a source and another person's motion, without a target (`paired` 0), from
      sample number `cross_from` on.

    Tensors of a sample, S the size of the pictures, G that of the conditions: `source`, `target`
    (3, S, S) and `source_lines`, `lines` (3, G, G), `gap` (1, G, G), `mouth`, `eyes` (1, S, S)
    uint8 in [0, 255]; `flow` and `teacher` (2, G, G) float32 in half sides, `trust` (1, G, G)
    uint8 in [0, 255]; `points` (478, 3) in pixels,
    `source_chip` and `chip` (2, 3), see `face.identity_chip`, float32; `paired` () float32.
    """

    def __init__(
        self,
        faces: Faces,
        *,
        morphable: MorphableModel,
        people: Sequence[str],
        length: int,
        seed: int,
        photo: float,
        cross: float,
        cross_from: int,
    ) -> None:
        allowed = set(people)
        self._faces = faces
        self._length = length
        self._seed = seed
        self._shares = (photo, cross)
        self._cross_from = cross_from
        self._morphable = morphable
        self._fitted: dict[int, FaceParameters] = {}
        self._clips: dict[str, list[int]] = defaultdict(list)
        self._photos: list[int] = []
        for number, clip in enumerate(faces.clips):
            if clip.identity in allowed and clip.count > 1:
                self._clips[clip.identity].append(number)
            elif clip.identity in allowed:
                self._photos.append(number)
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
        photo, cross = self._shares
        kind = draw.random()
        if kind < photo and self._photos:
            sample = self._moved_photo(draw)
        elif kind < photo + cross and index >= self._cross_from:
            sample = self._cross(draw)
        else:
            sample = self._pair(draw)
        return sample

    def _pair(self, draw: np.random.Generator) -> Sample:
        start, end = self._faces.ranges[self._clip(draw)]
        source, *others = start + draw.permutation(end - start)[: 1 + CANDIDATES]
        points = self._faces.points
        apart = {int(o): _difference(points[source], points[o]) for o in others}
        near = [o for o in apart if apart[o] <= FARTHEST_PAIR * self._faces.size]
        target = max(near, key=apart.__getitem__) if near else min(apart, key=apart.__getitem__)
        return self._sample(
            draw,
            images=(self._faces.images[source], self._faces.images[target]),
            points=(points[source], points[target]),
            paired=True,
        )

    def _moved_photo(self, draw: np.random.Generator) -> Sample:
        number = self._photos[draw.integers(len(self._photos))]
        at = self._faces.ranges[number][0]
        image, points = self._faces.images[at], self._faces.points[at]
        moved = self._borrowed_motion(draw, points)
        flow = Conditioner(points, side=self._faces.size, fade=self._fade)(moved).flow
        source = _warped(image, flow)
        return self._sample(draw, images=(source, image), points=(moved, points), paired=True)

    def _cross(self, draw: np.random.Generator) -> Sample:
        start, end = self._faces.ranges[self._clip(draw)]
        at = int(draw.integers(start, end))
        image, points = self._faces.images[at], self._faces.points[at]
        driven = self._borrowed_motion(draw, points)
        return self._sample(draw, images=(image, image), points=(points, driven), paired=False)

    def _clip(self, draw: np.random.Generator) -> int:
        person = self._people[draw.choice(len(self._people), p=self._weights)]
        numbers = self._clips[person]
        return numbers[draw.integers(len(numbers))]

    def _borrowed_motion(
        self, draw: np.random.Generator, points: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        performance = self._performance(self._clip(draw))
        reference, driver = draw.permutation(len(performance))[:2].tolist()
        retargeter = Retargeter(
            model=self._morphable,
            source_landmarks=points,
            strength=float(draw.uniform(*MOTION_STRENGTH)),
        )
        moved = retargeter.retarget(performance.frame(driver), performance.frame(reference))
        return moved.landmarks[0]

    def _performance(self, clip: int) -> FaceParameters:
        """The clip in the parameters of the morphable model; fitting takes as long as a step."""
        if clip not in self._fitted:
            start, end = self._faces.ranges[clip]
            points = self._faces.points[start:end]
            identity = fit_identity(self._morphable, points)
            self._fitted[clip] = fit_frames(self._morphable, points, identity)
        return self._fitted[clip]

    def _sample(
        self,
        draw: np.random.Generator,
        *,
        images: tuple[NDArray[np.uint8], NDArray[np.uint8]],
        points: tuple[NDArray[np.float32], NDArray[np.float32]],
        paired: bool,
    ) -> Sample:
        size = self._faces.size
        source, target = images
        source_points, target_points = points
        if draw.random() < 0.5:
            source, target = source[:, ::-1], target[:, ::-1]
            source_points = _mirrored(source_points, size)
            target_points = _mirrored(target_points, size)
        gain = draw.uniform(1 - GAIN_RANGE, 1 + GAIN_RANGE)
        gains = gain * draw.uniform(1 - CHANNEL_GAIN_RANGE, 1 + CHANNEL_GAIN_RANGE, 3)
        curves = np.clip(np.arange(256)[:, None] * gains, 0, 255).astype(np.uint8)
        channel = np.arange(3)
        source, target = curves[source, channel], curves[target, channel]
        conditioner = Conditioner(source_points, side=size, fade=self._fade)
        return as_sample(
            conditioner,
            source=source,
            target=target,
            source_points=source_points,
            points=target_points,
            paired=paired,
        )


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
            source_points=faces.points[source],
            points=faces.points[target],
            paired=True,
        )
        for source, target in pairs[:most]
    ]


def as_sample(
    conditioner: Conditioner,
    *,
    source: NDArray[np.uint8],
    target: NDArray[np.uint8],
    source_points: NDArray[np.float32],
    points: NDArray[np.float32],
    paired: bool,
) -> Sample:
    """Tensors of one sample, see `PairDataset`."""
    size = source.shape[0]
    condition = conditioner(points)
    mouth, eyes = regions(points, size=size)
    teacher, trust = teacher_flow(source, target, condition.flow)
    return {
        "source": _planes(source),
        "target": _planes(target),
        "source_lines": _planes(conditioner.source_lines),
        "lines": _planes(condition.lines),
        "gap": torch.from_numpy(condition.gap)[None],
        "flow": _planes(condition.flow),
        "teacher": _planes(teacher),
        "trust": torch.from_numpy(trust * np.uint8(paired))[None],
        "mouth": torch.from_numpy(mouth)[None],
        "eyes": torch.from_numpy(eyes)[None],
        "source_chip": torch.from_numpy(chip_to_picture(source_points)),
        "chip": torch.from_numpy(chip_to_picture(points)),
        "points": torch.from_numpy(points.astype(np.float32)),
        "paired": torch.tensor(float(paired)),
    }


def regions(
    points: NDArray[np.float32], *, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Masks (S, S) in [0, 255] of mouth and eyes with a margin; points in pixels."""
    margin = 2 * int(REGION_MARGIN * size) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin, margin))

    def mask(*names: str) -> NDArray[np.uint8]:
        whole = np.zeros((size, size), np.uint8)
        for name in names:
            rim = points[topology.ring(name), :2]
            whole = np.maximum(whole, filled_polygon(rim, side=size, size=size))
        return cv2.dilate(whole, kernel)

    return mask("lips_outer"), mask("left_eye", "right_eye")


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a[:, :2] - b[:, :2]).mean())


def _mirrored(points: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return (points * (-1, 1, 1) + (size, 0, 0)).astype(np.float32)


def _warped(image: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    return moved_by(image, flow * (image.shape[0] / 2))


def _planes(image: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
