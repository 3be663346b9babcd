"""Training samples of portraits in layers: a prepared picture cut into layers, and how it moves.

The background behind a person is plain here: an invented one would take longer than what is learnt
from the picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.conditions import GRID
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.head_sheet import HeadFrame
from metaportrait_cli.face.landmark_image import filled_polygon, landmark_image
from metaportrait_cli.face.matte import Segmenter, matte
from metaportrait_cli.render.layered import Layers, closed
from metaportrait_cli.render.plate import plain_background
from metaportrait_cli.training.data.pairs import Faces, Sample, farthest_of, planes, varied_light
from metaportrait_cli.training.data.teacher import teacher_flow
from metaportrait_cli.weights import bundled_path

LOOSE_SHARE = 0.1  # as in the renderer
SOURCES = 2
"""Pictures of a clip that are sources, evenly spread"""


class CutPictures:
    """Pictures by number, in layers; `None` where no person is told from the background."""

    def __init__(self, faces: Faces) -> None:
        self._faces = faces
        side = faces.size
        self._loose = border_fade(
            Crop(0, 0, side), width=side, height=side, size=side, share=LOOSE_SHARE, at_edges=False
        )
        self._made: dict[int, Layers | None] = {}

    def __getitem__(self, number: int) -> Layers | None:
        if number not in self._made:
            self._made[number] = self._layers(number)
        return self._made[number]

    def _layers(self, number: int) -> Layers | None:
        picture, points = self._faces.images[number], self._faces.points[number]
        alpha = matte(picture, points, Segmenter(bundled_path("selfie_segmenter")))
        if alpha is None:
            return None
        width = HeadFrame.of(points).width
        plate = plain_background(picture, alpha, width=width)
        return Layers.of(picture, points, alpha=alpha, loose=self._loose, plate=plate)


class LayeredPairs(Dataset[Sample]):
    """Source and target out of one clip; the target is the one of three draws that differs most.

    Tensors of a sample, S the size of the pictures, G that of the conditions: `source`, `target`,
    `plate` (3, S, S), `person` (4, S, S), `source_lines`, `lines` (3, G, G), `gap`, `trust` and
    `cover` (1, G, G) uint8 in [0, 255]; `flow`, `teacher` (2, G, G) in half sides and `known`
    (3, G, G) float32, see `LayeredWarping`; `points` (478, 3) float32 in pixels.
    """

    def __init__(self, faces: Faces, *, people: Sequence[str], length: int, seed: int) -> None:
        self._faces = faces
        self._cut = CutPictures(faces)
        self._length = length
        self._seed = seed
        self._clips: dict[str, list[int]] = defaultdict(list)
        for number, clip in enumerate(faces.clips):
            if clip.identity in set(people) and clip.count > 1:
                self._clips[clip.identity].append(number)
        if not self._clips:
            raise MediaError("no clip with two different pictures of a face in the prepared data")
        self._people = sorted(self._clips)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        for attempt in range(100):
            draw = np.random.default_rng((self._seed, index, attempt))
            numbers = self._clips[self._people[draw.integers(len(self._people))]]
            clip = numbers[draw.integers(len(numbers))]
            source = int(draw.choice(sources(self._faces, clip)))
            layers = self._cut[source]
            if layers is not None:
                target = farthest_of(self._faces, draw, clip, source)
                sample = as_layered_sample(self._faces, layers, source=source, target=target)
                return _varied(sample, draw)
        raise MediaError("hardly a picture of the prepared data shows a person to be told apart")


def sources(faces: Faces, clip: int) -> list[int]:
    """Pictures of a clip, by number, that are cut into layers."""
    start, end = faces.ranges[clip]
    return list(range(start, end, -(-(end - start) // SOURCES)))


def held_out_layered(faces: Faces, *, people: Sequence[str], most: int) -> list[Sample]:
    """Sources → the farthest picture of their clips, at most `most` in all, people in turn."""
    allowed, cut = set(people), CutPictures(faces)
    by_person: dict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(faces.clips):
        if clip.identity in allowed and clip.count > 1:
            by_person[clip.identity] += sources(faces, number)
    found = []
    clip_of = {
        picture: number
        for number in range(len(faces.clips))
        for picture in range(*faces.ranges[number])
    }
    for k in range(max(map(len, by_person.values()), default=0)):
        for pictures in by_person.values():
            if k >= len(pictures) or len(found) == most:
                continue
            source = pictures[k]
            layers = cut[source]
            if layers is not None:
                draw = np.random.default_rng(source)
                target = farthest_of(faces, draw, clip_of[source], source)
                found.append(as_layered_sample(faces, layers, source=source, target=target))
    return found


def as_layered_sample(faces: Faces, layers: Layers, *, source: int, target: int) -> Sample:
    """Tensors of one sample, see `LayeredPairs`."""
    side, points = faces.size, faces.points[target]
    layout = layers.sheet.layout(points, side=side, grid=GRID)
    place = closed(layout.place, layout.cover)
    # Beyond the sheet's neighbours nothing moves.
    moved = cv2.blur(layout.cover, (3, 3)) > 0
    flow = np.where(moved[..., None], place - _centres(side), 0) * np.float32(2 / side)
    flow = flow.astype(np.float32)
    teacher, trust = teacher_flow(faces.images[source], faces.images[target], flow)
    known = layers.known(side=side, grid=GRID)
    cover = np.minimum(layout.cover, 1)
    # Only what the person shows tells how the person moves.
    there = cv2.remap(known[..., 0], (place * GRID / side - 0.5), None, cv2.INTER_LINEAR) * cover
    return {
        "source": planes(faces.images[source]),
        "target": planes(faces.images[target]),
        "plate": planes(layers.plate),
        "person": planes(layers.person),
        "source_lines": planes(landmark_image(faces.points[source], side=side, size=GRID)),
        "lines": planes(landmark_image(points, side=side, size=GRID)),
        "gap": torch.from_numpy(filled_polygon(layout.gap, side=side, size=GRID))[None],
        "cover": torch.from_numpy(np.rint(255 * cover).astype(np.uint8))[None],
        "flow": planes(flow),
        "known": planes(known),
        "teacher": planes(teacher),
        "trust": torch.from_numpy((trust * there).astype(np.uint8))[None],
        "points": torch.from_numpy(points.astype(np.float32)),
    }


def _varied(sample: Sample, draw: np.random.Generator) -> Sample:
    """The sample mirrored half of the time, in varied light."""
    if draw.random() < 0.5:
        size = sample["source"].shape[-1]
        points = sample.pop("points") * torch.tensor([-1.0, 1, 1]) + torch.tensor([size, 0.0, 0])
        sample = {key: value.flip(-1) for key, value in sample.items()}
        for flow in ("flow", "teacher"):
            sample[flow][0] *= -1
        sample["points"] = points.float()
    gains = varied_light(draw)
    for key in ("source", "target", "plate", "person"):
        colours = sample[key][:3].float() * torch.from_numpy(gains).float()[:, None, None]
        sample[key] = torch.cat([colours.clamp(0, 255).to(torch.uint8), sample[key][3:]])
    return sample


@cache
def _centres(side: int) -> NDArray[np.float32]:
    centres = (np.arange(GRID, dtype=np.float32) + 0.5) * np.float32(side / GRID)
    return np.dstack(np.meshgrid(centres, centres)).astype(np.float32)
