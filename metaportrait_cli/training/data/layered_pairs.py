"""Training samples of portraits in layers: a prepared picture cut into layers, and how it moves.

The background behind a person is plain here: an invented one would take longer than what is learnt
from the picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.conditions import GRID
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.head_sheet import HeadFrame, skull_points, turned_away
from metaportrait_cli.face.landmark_image import filled_polygon, landmark_image
from metaportrait_cli.face.matte import Segmenter, matte
from metaportrait_cli.render.behind.edges import closed
from metaportrait_cli.render.behind.plate import plain_background
from metaportrait_cli.render.layered import Layers
from metaportrait_cli.training.data.pairs import Faces, Sample, one_shot, planes, varied_light
from metaportrait_cli.training.data.teacher import teacher_flow
from metaportrait_cli.weights import bundled_path

LOOSE_SHARE = 0.1  # as in the renderer
SOURCES = 4
"""Pictures of a clip that are sources, evenly spread"""
MOST_TURNED = np.radians(25.0)
"""Up to which turns are asked for alike: heads mostly hardly turn, and there layers serve little"""


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
    """Source and target out of one clip, turned from each other by at least an angle that is drawn.

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
        turns = _turns(faces, people)
        if not turns:
            raise MediaError("no clip with two different pictures of a face in the prepared data")
        self._people = sorted(turns)
        self._turns = [turns[person] for person in self._people]
        self._most = np.array([max(angles.max() for _, _, angles in own) for own in self._turns])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        for attempt in range(100):
            draw = np.random.default_rng((self._seed, index, attempt))
            source, target = self._pair(draw)
            layers = self._cut[source]
            if layers is not None:
                sample = as_layered_sample(self._faces, layers, source=source, target=target)
                return _varied(sample, draw)
        raise MediaError("hardly a picture of the prepared data shows a person to be told apart")

    def _pair(self, draw: np.random.Generator) -> tuple[int, int]:
        """Pictures by number: a person who turns by the angle drawn, and any of those turns."""
        least = min(draw.uniform(0, MOST_TURNED), self._most.max())
        person = draw.choice(np.flatnonzero(self._most >= least))
        fit = [(s, t) for s, all_, angles in self._turns[person] for t in all_[angles >= least]]
        source, target = fit[draw.integers(len(fit))]
        return int(source), int(target)


Turns = tuple[int, NDArray[np.int64], NDArray[np.float64]]
"""A source by number, targets of its clip (N,), and the angles (N,) in radians between them"""


def _turns(faces: Faces, people: Sequence[str]) -> dict[str, list[Turns]]:
    """Of the people's clips, by person; none of a source without a target in the same shot."""
    found: dict[str, list[Turns]] = defaultdict(list)
    for number, clip in enumerate(faces.clips):
        if clip.identity not in people or clip.count < 2:
            continue
        start, end = faces.ranges[number]
        for source in range(start, end, -(-(end - start) // SOURCES)):
            skull = skull_points(faces.points[source])
            targets = np.array(one_shot(faces, number, source), np.int64)
            away = [
                turned_away(faces.points[source, skull], faces.points[target, skull])
                for target in targets
            ]
            if len(targets):
                found[clip.identity].append((source, targets, np.array(away)))
    return dict(found)


def held_out_layered(faces: Faces, *, people: Sequence[str], most: int) -> list[Sample]:
    """Sources → the picture of their clips that is turned most, at most `most` in all, people in
    turn."""
    cut, found = CutPictures(faces), []
    for sources in zip_longest(*_turns(faces, people).values()):
        for source, targets, away in filter(None, sources):
            layers = cut[source]
            if layers is not None and len(found) < most:
                target = int(targets[away.argmax()])
                found.append(as_layered_sample(faces, layers, source=source, target=target))
    return found


def as_layered_sample(faces: Faces, layers: Layers, *, source: int, target: int) -> Sample:
    """Tensors of one sample, see `LayeredPairs`."""
    side, points = faces.size, faces.points[target]
    layout = layers.sheet.layout(points, side=side, grid=GRID)
    place = closed(layout.place, layout.cover > 0)
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
