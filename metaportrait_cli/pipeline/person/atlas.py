"""The reference atlas: which of a person's pictures are kept, and which of them is the canvas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import to_frame
from metaportrait_cli.motion.likeness import Likeness, Looks, squared_distances
from metaportrait_cli.pipeline.person.recording import Look, Recording
from metaportrait_cli.pipeline.source import even

VIEWS = 16
# What the atlas is to cover, each in the difference that counts as one.
COVERED = Likeness(turn=0.14, place=0.3, mouth=0.05, lips=0.05, eyes=0.1, gaze=0.11)
# The canvas looks into the camera, is in its place, has open eyes and its lips together.
CANVAS_TURN, CANVAS_PLACE, CANVAS_LIPS, CANVAS_LIDS = 0.15, 0.3, 0.06, 0.06
WIDE_OPEN = 0.75
"""Quantile of the eyes' openness that counts as open."""
LEAST_SHARPNESS = 0.7
"""Of the median's."""
WORST_FIT = 2.0
"""Of the median's error: hands, cups and wrong faces lie beyond."""
UNUSABLE = 100.0


def usable(recording: Recording) -> NDArray[np.bool_]:
    """(N,) looks that are sharp, and whose face is not hidden."""
    sharpness, error = recording.sharpness, recording.fitted.error
    sharp = sharpness >= LEAST_SHARPNESS * np.median(sharpness)
    return sharp & (error <= WORST_FIT * np.median(error))


def choose_canvas(recording: Recording) -> int:
    """The look that others are put into: frontal, calm, in the middle of where the person is."""
    fit, points, sharpness = recording.fitted, recording.points, recording.sharpness
    faces = to_frame(points, fit.rotation, fit.scale, fit.translation)
    openness = apertures.eye_openness(faces).mean(-1)
    closed = np.maximum(np.quantile(openness, WIDE_OPEN) - openness, 0)
    parted = np.maximum(apertures.mouth_openness(faces), 0)
    cost = (fit.angles**2).sum(-1) / CANVAS_TURN**2
    cost += (parted / CANVAS_LIPS) ** 2 + (closed / CANVAS_LIDS) ** 2
    if recording.kind == "video":  # photos have each a frame of their own
        middle = points[..., :2].mean(1)
        away = (middle - np.median(middle, axis=0)) / np.median(fit.scale)
        cost += (away**2).sum(-1) / CANVAS_PLACE**2
    cost += np.median(sharpness) / np.maximum(sharpness, 1e-6)
    cost[~usable(recording)] += UNUSABLE
    return int(cost.argmin())


def choose_views(recording: Recording, canvas: int, *, most: int = VIEWS) -> list[int]:
    """Looks that together come near to all others, at most `most`, the canvas first.

    Greedy: each next one takes away most of the summed squared distances of all looks to the
    nearest one chosen. Those of a video must lie within the canvas's crop.
    """
    crops = crops_of(recording, canvas)
    framed = np.stack(
        [crop.to_crop(face, 1) for crop, face in zip(crops, recording.points, strict=True)]
    )
    scaled = Looks.of(framed, framed[canvas]).scaled(COVERED)
    apart = squared_distances(scaled, scaled)
    inside = ((framed[..., :2] > 0) & (framed[..., :2] < 1)).all((1, 2))
    allowed = usable(recording) & inside
    nearest = apart[canvas].copy()
    chosen = [canvas]
    while len(chosen) < most:
        gain = np.maximum(nearest - apart, 0).sum(1)
        gain[~allowed] = 0
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, apart[best])
    return chosen


def crops_of(recording: Recording, canvas: int) -> list[Crop]:
    """The square of each look: the canvas's for a video, so that what is still stays in place."""
    looks = recording.looks
    if recording.kind == "video":
        return [_own_crop(looks[canvas])] * len(looks)
    return [_own_crop(look) for look in looks]


def as_source(look: Look, crop: Crop) -> Source:
    """A look as a portrait, framed by the crop."""
    face = Face.of(look.points, look.blendshapes, look.confidence)
    picture = even(look.picture())
    return Source(
        path=look.path,
        picture=picture,
        face=face,
        faces_seen=1,
        crop=crop,
        strangers=look.strangers,
    )


def _own_crop(look: Look) -> Crop:
    return Crop.around(look.points, within=look.size)
