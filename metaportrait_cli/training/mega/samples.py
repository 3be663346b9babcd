"""Training samples of the base model: two pictures of a video, and two of another.

Sample number `i` of a data set is a function of seed and `i` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face import topology
from metaportrait_cli.face.landmark_image import SUBPIXEL_BITS, subpixels
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.render.mega.pose import aligned_face, head_matrices
from metaportrait_cli.training.data.episodes import videos_of
from metaportrait_cli.training.data.pairs import Faces

GAIN, CHANNEL_GAIN = 0.06, 0.03
"""Of the light in source and target alike"""
CELLS, SHIFT = 8, 0.1
"""Driver augmentation: a grid whose inner nodes move by this share of a cell (standard deviation):
features lose their shape, but lids and lips neither open nor shut"""
JITTER, GREY = 0.4, 0.05
"""And its colours: gain, contrast and saturation by up to this much; sometimes none at all"""
EYE_REACH = 0.35
"""By how much the region around an eye is larger than the eye, in eye widths"""


@dataclass(frozen=True)
class MegaSample:
    """One sample, or a batch of them. S is the pictures' side, L the looks'.

    Pictures are uint8 RGB times the person's matte. Heads are those of `render.mega.pose`.
    """

    source: Tensor
    """x_s (…, 3, S, S)"""
    source_head: Tensor
    """(…, 4, 4)"""
    driver: Tensor
    """x_d (…, 3, S, S), the target"""
    matte: Tensor
    """(…, 1, S, S) uint8, of x_d"""
    driver_head: Tensor
    look: Tensor
    """(…, 3, L, L): the driver's face aligned, in another shape and in other colours"""
    eyes: Tensor
    """(…, 1, S, S) uint8: where x_d has its eyes"""
    points: Tensor
    """(…, 478, 3) of x_d in pixels"""
    other_source: Tensor
    """x_s* of another video"""
    other_source_head: Tensor
    other_head: Tensor
    """Of x_d*"""
    other_look: Tensor
    """Of x_d*, as `look`"""

    @classmethod
    def batch(cls, samples: Sequence[Self]) -> Self:
        """Several, stacked."""
        names = [each.name for each in fields(cls)]
        return cls(**{name: torch.stack([getattr(s, name) for s in samples]) for name in names})

    def to(self, device: torch.device) -> Self:
        """The same elsewhere."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Subjects:
    """Prepared pictures with what the base model needs to know of them."""

    faces: Faces
    mattes: NDArray[np.uint8]
    """(N, m, m), see `mattes_of`"""
    config: MegaConfig

    @cached_property
    def heads(self) -> NDArray[np.float32]:
        """(N, 4, 4)"""
        return head_matrices(
            self.faces.points, side=self.faces.size, model=MorphableModel.bundled()
        )

    def matte(self, number: int) -> NDArray[np.float32]:
        """Of a picture, (S, S, 1) in [0, 1]."""
        size = self.config.size
        found = cv2.resize(self.mattes[number], (size, size), interpolation=cv2.INTER_LINEAR)
        return found[..., None].astype(np.float32) / 255

    def picture(self, number: int) -> NDArray[np.float32]:
        """(S, S, 3) in [0, 255], without its background."""
        size, image = self.config.size, self.faces.images[number]
        method = cv2.INTER_AREA if size < len(image) else cv2.INTER_CUBIC
        image = cv2.resize(image, (size, size), interpolation=method)
        return image * self.matte(number)

    def eyes(self, number: int) -> NDArray[np.uint8]:
        """(S, S): eyes and a little around them, softly."""
        size, points = self.config.size, self.points(number)
        mask = np.zeros((size, size), np.uint8)
        for name, corners in zip(("right_eye", "left_eye"), topology.EYE_CORNERS, strict=True):
            ring = points[topology.ring(name), :2]
            width = float(np.linalg.norm(points[corners[0], :2] - points[corners[1], :2]))
            reach = max(1, round(EYE_REACH * width))
            eye = np.zeros_like(mask)
            # Its rim too: that is all there is of a shut one.
            cv2.fillPoly(eye, [subpixels(ring, scale=1)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
            mask = np.maximum(mask, cv2.blur(cv2.dilate(eye, kernel), (2 * (reach // 2) + 1,) * 2))
        return mask

    def points(self, number: int) -> NDArray[np.float32]:
        """(478, 3) in pixels of a picture of side S."""
        return self.faces.points[number] * np.float32(self.config.size / self.faces.size)

    def look(self, number: int, *, alone: bool) -> NDArray[np.float32]:
        """The aligned face (L, L, 3), without its background or with it."""
        picture = self.picture(number) if alone else self.faces.images[number]
        return aligned_face(picture, self.heads[number], size=self.config.look)


class MegaDataset(Dataset[MegaSample]):
    """All videos are as likely; the other video is another person's where there are several."""

    def __init__(self, subjects: Subjects, *, names: Sequence[str], length: int, seed: int) -> None:
        """Raises `MediaError` if nobody of `names` has a clip of two pictures."""
        self._subjects = subjects
        self._videos = videos_of(subjects.faces, names)
        if not self._videos:
            raise MediaError("no clip with two different pictures of a face in the prepared data")
        faces = subjects.faces
        owners = {span: clip.identity for clip, span in zip(faces.clips, faces.ranges, strict=True)}
        self._whose = [owners[span] for span in self._videos]
        self._length = length
        self._seed = seed

    def __len__(self) -> int:
        return self._length

    @property
    def persons(self) -> int:
        """How many there are."""
        return len(set(self._whose))

    def __getitem__(self, index: int) -> MegaSample:
        draw = np.random.default_rng((self._seed, index))
        video = int(draw.integers(len(self._videos)))
        others = [n for n, who in enumerate(self._whose) if who != self._whose[video]] or [video]
        other = others[int(draw.integers(len(others)))]
        return sample_of(
            self._subjects,
            self._two(draw, video),
            self._two(draw, other),
            lights=(_light(draw), _light(draw)),
            mirror=bool(draw.random() < 0.5),
            draw=draw,
        )

    def _two(self, draw: np.random.Generator, video: int) -> tuple[int, int]:
        start, end = self._videos[video]
        first, second = start + draw.choice(end - start, 2, replace=False)
        return int(first), int(second)


def _light(draw: np.random.Generator) -> NDArray[np.float32]:
    gain = draw.uniform(1 - GAIN, 1 + GAIN)
    return (gain * draw.uniform(1 - CHANNEL_GAIN, 1 + CHANNEL_GAIN, 3)).astype(np.float32)


def sample_of(
    subjects: Subjects,
    pair: tuple[int, int],
    other: tuple[int, int],
    *,
    lights: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    mirror: bool = False,
    draw: np.random.Generator | None = None,
) -> MegaSample:
    """Of pictures by number, (source, driver) each; with `draw` drivers' looks are augmented."""
    light, other_light = lights or (np.ones(3, np.float32),) * 2
    source, driver = (subjects.picture(n) * light for n in pair)
    other_source = subjects.picture(other[0]) * other_light
    # Drivers' pictures are read with their backgrounds, painted ones have none.
    looks = [
        subjects.look(number, alone=draw is not None and draw.random() < 0.5)
        for number in (pair[1], other[1])
    ]
    if draw is not None:
        looks = [disguised(look, draw) for look in looks]
    planes = [source, driver, 255 * subjects.matte(pair[1]), subjects.eyes(pair[1])[..., None]]
    planes += [other_source, *looks]
    heads = [subjects.heads[n] for n in (*pair, *other)]
    points = subjects.points(pair[1])
    if mirror:
        planes = [plane[:, ::-1] for plane in planes]
        flip = np.diag([-1, 1, 1, 1]).astype(np.float32)
        heads = [flip @ head @ flip for head in heads]
        points = points[topology.mirror()] * (-1, 1, 1) + (subjects.config.size, 0, 0)
    source, driver, matte, eyes, other_source, look, other_look = map(_plane, planes)
    source_head, driver_head, other_source_head, other_head = map(torch.from_numpy, heads)
    return MegaSample(
        source=source,
        source_head=source_head,
        driver=driver,
        matte=matte,
        driver_head=driver_head,
        look=look,
        eyes=eyes,
        points=torch.from_numpy(points.astype(np.float32)),
        other_source=other_source,
        other_source_head=other_source_head,
        other_head=other_head,
        other_look=other_look,
    )


def disguised(look: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    """A driver's look (L, L, 3) as another person's might be: features elsewhere, other colours."""
    size = len(look)
    nodes = np.zeros((CELLS + 1, CELLS + 1, 2), np.float32)
    nodes[1:-1, 1:-1] = draw.normal(0, SHIFT * size / CELLS, (CELLS - 1, CELLS - 1, 2))
    places = np.dstack(np.meshgrid(*[np.arange(size, dtype=np.float32)] * 2))
    places += cv2.resize(nodes, (size, size), interpolation=cv2.INTER_CUBIC)
    look = cv2.remap(look, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gain, contrast, saturation = draw.uniform(1 - JITTER, 1 + JITTER, 3)
    tint = draw.uniform(1 - JITTER / 2, 1 + JITTER / 2, 3)
    if draw.random() < GREY:
        saturation = 0.0
    grey = look.mean(axis=2, keepdims=True)
    look = (grey + saturation * (look - grey)) * (gain * tint)
    return (look.mean() + contrast * (look - look.mean())).astype(np.float32)


def judged_samples(subjects: Subjects, *, names: Sequence[str], most: int) -> list[MegaSample]:
    """First picture → later ones of each clip, unaltered, at most `most` in all, in turn."""
    spans = videos_of(subjects.faces, names)
    pairs = [
        (start, start + k)
        for k in range(1, max((end - start for start, end in spans), default=0))
        for start, end in spans
        if start + k < end
    ]
    return [sample_of(subjects, pair, pair) for pair in pairs[:most]]


def _plane(image: NDArray[np.float32] | NDArray[np.uint8]) -> Tensor:
    rounded = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(rounded.transpose(2, 0, 1)))
