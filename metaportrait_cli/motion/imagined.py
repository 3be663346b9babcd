"""Motion that nobody made: random expressions, blinks, looks and poses of a person.

For learning a person from a renderer: a few clips show a few moods, and what they don't show must
be learnt, too. Frames are independent of each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import Floats, angles_of, from_frame, rotation_of
from metaportrait_cli.motion.fitting import FaceParameters, still_faces
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.rest import with_gaps

# The detector's blendshapes by their number, and how often each is part of an expression.
MOVES: Final[tuple[tuple[tuple[int, ...], float], ...]] = (
    *(((1, 2), 0.25), ((3,), 0.25), ((4, 5), 0.2), ((4,), 0.05), ((5,), 0.05)),  # brows
    *(((6,), 0.1), ((7, 8), 0.2), ((19, 20), 0.2)),  # cheeks, squints
    *(((25,), 0.5), ((23,), 0.05), ((26,), 0.08), ((24,), 0.08)),  # jaw
    *(((32,), 0.2), ((38,), 0.2), ((30, 31), 0.15), ((44, 45), 0.35), ((46, 47), 0.2)),
    *(((44,), 0.05), ((45,), 0.05), ((34, 35), 0.25), ((48, 49), 0.2), ((40,), 0.1), ((43,), 0.1)),
    *(
        ((36, 37), 0.1),
        ((27,), 0.1),
        ((50, 51), 0.15),
        ((28, 29), 0.1),
        ((33,), 0.05),
        ((39,), 0.05),
    ),
)
OPEN: Final = (((25,), 0.6), ((34, 35), 0.5), ((48, 49), 0.4), ((44, 45), 0.3))
"""Jaw, lower lip down, upper lip up, smile"""
WILD: Final = 0.35
"""Share of frames with any coefficients rather than blendshapes, of this many deviations:"""
DEVIATION: Final = 0.9
SHUT, NARROW, WINK = 0.14, 0.2, 0.05
"""Shares of frames with both eyes shut, with half closed ones, with one shut"""
WIDEST: Final = 1.25
GAZE: Final = np.array([0.22, 0.1], np.float32)
GAZE_LIMIT: Final = np.array([0.5, 0.25], np.float32)
TURN: Final = np.radians([13.0, 8.0, 6.0]).astype(np.float32)
"""Standard deviation of yaw, pitch, roll from the source's"""
TURN_LIMIT: Final = np.radians([34.0, 22.0, 20.0]).astype(np.float32)
SHIFT, SHIFT_LIMIT = 0.12, 0.5
"""In inter-ocular distances"""
STILL: Final = 0.25
"""Share of frames in nearly the source's own pose, from which faces are mostly seen"""


def imagined(
    model: MorphableModel, rest: FaceParameters, draw: np.random.Generator, count: int
) -> Floats:
    """Landmarks (`count`, 478, 3) in pixels of the picture that the one frame `rest` is of."""
    frames = rest.frames(np.zeros(count, np.intp))
    amounts = np.zeros((count, len(model.blendshape_rest)), np.float32)
    for numbers, often in MOVES:
        chosen = draw.random(count) < often
        amounts[:, list(numbers)] += (chosen * draw.random(count))[:, None]
    expression = np.clip(amounts, 0, 1) @ model.blendshape_effect
    wild = draw.random(count) < WILD
    any_way = draw.normal(0, DEVIATION, expression.shape)
    expression = np.where(wild[:, None], np.clip(any_way, -2.5, 2.5), expression)
    gaze = np.clip(draw.normal(0, GAZE, (count, 1, 2)), -GAZE_LIMIT, GAZE_LIMIT)
    moved = replace(
        frames,
        expression=(frames.expression + expression).astype(np.float32),
        gaze=(frames.gaze + gaze).astype(np.float32),
    )
    faces = still_faces(model, with_gaps(model, moved, _gaps(model, moved, rest, draw)))

    share = np.where(draw.random(count) < STILL, 0.15, 1.0)[:, None]
    turn = np.clip(share * draw.normal(0, TURN, (count, 3)), -TURN_LIMIT, TURN_LIMIT)
    rotation = rotation_of(angles_of(rest.rotation) + turn)
    shift = np.clip(share * draw.normal(0, SHIFT, (count, 3)), -SHIFT_LIMIT, SHIFT_LIMIT)
    shift[:, 2] = 0
    translation = rest.translation + shift * rest.scale[:, None]
    return from_frame(faces, rotation, frames.scale, translation).astype(np.float32)


def _gaps(
    model: MorphableModel, frames: FaceParameters, rest: FaceParameters, draw: np.random.Generator
) -> Floats:
    """Gaps (T, G): lips don't cross, and lids are as far open as is drawn."""
    count = len(frames)
    kind = draw.random(count)
    openness = np.repeat(draw.uniform(0.8, WIDEST, (count, 1)), 2, axis=1)
    openness[kind < SHUT + NARROW] *= draw.random((int((kind < SHUT + NARROW).sum()), 1))
    openness[kind < SHUT] = 0
    wink = np.flatnonzero(kind > 1 - WINK)
    openness[wink, draw.integers(0, 2, len(wink))] = 0
    gaps = np.maximum(apertures.gaps(still_faces(model, frames)), 0)
    at_rest = np.maximum(apertures.gaps(still_faces(model, rest)), 0)
    for side, eye in enumerate(apertures.EYES):
        gaps[:, eye] = at_rest[:, eye] * openness[:, side, None]
    return gaps


def open_face(model: MorphableModel, rest: FaceParameters) -> Floats:
    """Landmarks (478, 3) of the person in the pose of `rest`, with a wide mouth that shows teeth,
    and with eyes shut: what the person's own picture mostly hides."""
    amounts = np.zeros((1, len(model.blendshape_rest)), np.float32)
    for numbers, amount in OPEN:
        amounts[:, list(numbers)] = amount
    expression = rest.expression + amounts @ model.blendshape_effect
    frame = replace(rest, expression=expression.astype(np.float32))
    gaps = np.maximum(apertures.gaps(still_faces(model, frame)), 0)
    for eye in apertures.EYES:
        gaps[:, eye] = 0
    faces = still_faces(model, with_gaps(model, frame, gaps))
    return from_frame(faces, rest.rotation, rest.scale, rest.translation).astype(np.float32)[0]
