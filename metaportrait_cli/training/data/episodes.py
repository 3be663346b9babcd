"""Training samples for few-shot learning: some pictures of a clip, and one more to paint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.landmark_image import SCHEMA, landmark_image
from metaportrait_cli.training.data.pairs import Faces


@dataclass(frozen=True)
class Episode:
    """K pictures of a clip (the sources) and a further one (the target, the last), or a batch.

    Pictures and landmark images (…, K + 1, 3, S, S) uint8 RGB; `points` (…, 478, 3) of the target
    in pixels; `video` (…), the clip's number among those learnt from.
    """

    pictures: Tensor
    landmarks: Tensor
    points: Tensor
    video: Tensor

    @classmethod
    def of(
        cls,
        faces: Faces,
        numbers: Sequence[int],
        *,
        size: int,
        video: int,
        schema: str = SCHEMA,
    ) -> Episode:
        """Out of prepared pictures, by number, the target last; scaled to `size`."""
        points = [faces.points[n] for n in numbers]
        drawn = [landmark_image(each, side=faces.size, size=size, schema=schema) for each in points]
        return cls(
            pictures=_planes([_scaled(faces.images[n], size) for n in numbers]),
            landmarks=_planes(drawn),
            points=torch.from_numpy(points[-1] * np.float32(size / faces.size)),
            video=torch.tensor(video),
        )

    @classmethod
    def batch(cls, episodes: Sequence[Episode]) -> Episode:
        """Several, stacked."""
        return cls(
            pictures=torch.stack([each.pictures for each in episodes]),
            landmarks=torch.stack([each.landmarks for each in episodes]),
            points=torch.stack([each.points for each in episodes]),
            video=torch.stack([each.video for each in episodes]),
        )

    def to(self, device: torch.device) -> Episode:
        """The same elsewhere."""
        return Episode(*(each.to(device) for each in vars(self).values()))


class EpisodeDataset(Dataset[Episode]):
    """Episode number `i` depends on seed and `i` alone; all videos are as likely."""

    def __init__(
        self,
        faces: Faces,
        *,
        people: Sequence[str],
        shots: int,
        size: int,
        length: int,
        seed: int,
        schema: str = SCHEMA,
    ) -> None:
        """Raises `MediaError` if nobody of `people` has a clip of two pictures."""
        self._faces = faces
        self._videos = videos_of(faces, people)
        if not self._videos:
            raise MediaError("no clip with two different pictures of a face in the prepared data")
        self._shots = shots
        self._size = size
        self._length = length
        self._seed = seed
        self._schema = schema

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Episode:
        draw = np.random.default_rng((self._seed, index))
        video = int(draw.integers(len(self._videos)))
        start, end = self._videos[video]
        target, *others = start + draw.permutation(end - start)
        # Short clips show some pictures more than once.
        sources = np.resize(others, self._shots)
        numbers = [*sources.tolist(), int(target)]
        return Episode.of(self._faces, numbers, size=self._size, video=video, schema=self._schema)


def videos_of(faces: Faces, people: Sequence[str]) -> list[tuple[int, int]]:
    """First and past-the-last picture of the clips of some people, of two pictures or more."""
    allowed = set(people)
    return [
        span
        for clip, span in zip(faces.clips, faces.ranges, strict=True)
        if clip.identity in allowed and clip.count > 1
    ]


def judged_episodes(
    faces: Faces,
    *,
    people: Sequence[str],
    shots: int,
    size: int,
    most: int,
    schema: str = SCHEMA,
) -> list[Episode]:
    """The first pictures of clips → later ones, at most `most` in all, people in turn."""
    spans = [(a, b) for a, b in videos_of(faces, people) if b - a > shots]
    wanted = [
        ((*range(a, a + shots), a + k), video)
        for k in range(shots, max((b - a for a, b in spans), default=0))
        for video, (a, b) in enumerate(spans)
        if a + k < b
    ]
    return [
        Episode.of(faces, n, size=size, video=video, schema=schema) for n, video in wanted[:most]
    ]


def _scaled(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if image.shape[0] == size:
        return image
    shrinks = size < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), np.uint8)


def _planes(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
