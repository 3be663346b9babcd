"""How much of an expression arrives in a source's pictures: a few are rendered and looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.landmark_model import FaceSquare
from metaportrait_cli.face.source import Source
from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import Floats, from_frame
from metaportrait_cli.motion.compensation import Compensation
from metaportrait_cli.motion.features import features
from metaportrait_cli.motion.fitting import fit_frames, still_faces
from metaportrait_cli.motion.rest import with_gaps
from metaportrait_cli.motion.retarget import Retargeter
from metaportrait_cli.motion.strengths import Strengths
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.performance import Performance
from metaportrait_cli.render.protocol import Driven, Session

# The detector's blendshapes by their number, left before right.
BROWS_DOWN, INNER_BROWS_UP, OUTER_BROWS_UP = (1, 2), (3,), (4, 5)
LEFT_BLINK, RIGHT_BLINK = (9,), (10,)
JAW_OPEN, FUNNEL, PUCKER, FROWN = (25,), (32,), (38,), (30, 31)
LOWER_LIP_DOWN, UPPER_LIP_UP, SMILE, STRETCH = (34, 35), (48, 49), (44, 45), (46, 47)

PROBES: Final[tuple[dict[tuple[int, ...], float], ...]] = (
    {},
    {JAW_OPEN: 0.45},
    {SMILE: 0.7, INNER_BROWS_UP: 0.7, OUTER_BROWS_UP: 0.7},
    {PUCKER: 0.8, RIGHT_BLINK: 0.7},
    {SMILE: 0.6, UPPER_LIP_UP: 0.5, LOWER_LIP_DOWN: 0.5, JAW_OPEN: 0.2, BROWS_DOWN: 0.7},
    {JAW_OPEN: 0.7, FUNNEL: 0.5, LEFT_BLINK: 0.7},
    {FROWN: 0.6, INNER_BROWS_UP: 0.5, OUTER_BROWS_UP: 0.8, LEFT_BLINK: 0.4, RIGHT_BLINK: 0.4},
    {STRETCH: 0.6, JAW_OPEN: 0.25, BROWS_DOWN: 0.6},
)
"""Expressions beyond the rest. Mouth and brows don't mind each other: one frame for both.
Eyes blink as drivers' do: over closed ones brows are seen to move less."""
LEAST_PRESENCE: Final = 0.9

Look = Callable[[NDArray[np.uint8], FaceSquare], tuple[NDArray[np.float32], float]]
"""`LandmarkModel.look`: points in a region of a picture, and how surely there is a face."""


def compensate(performance: Performance, session: Session, *, size: int, engine: Engine) -> None:
    """Lets the performance ask for what the session's pictures, `size` pixels wide, would lose.

    Nothing is asked for where a person drives their own picture and landmarks are the truth, or
    where `needed` is nothing.
    """
    if not performance.same_person:
        performance.retargeter.compensation = needed(
            performance.source,
            performance.retargeter,
            session,
            strengths=performance.options.strengths,
            size=size,
            engine=engine,
        )


def needed(
    source: Source,
    retargeter: Retargeter,
    session: Session,
    *,
    strengths: Strengths,
    size: int,
    engine: Engine,
) -> Compensation | None:
    """What a source's pictures, `size` pixels wide, need whoever drives them but the person's self.

    `None` where no expression is passed on, or where the landmark model's networks can't be run one
    at a time.
    """
    networks = engine.detector.networks
    if networks is None or not any(strengths.of_face.values()):
        return None

    def render(landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
        return session.render(Driven.of(source.crop.to_crop(landmarks, size))).frames

    return compensation_of(source, retargeter, networks.look, render)


def compensation_of(
    source: Source,
    retargeter: Retargeter,
    look: Look,
    render: Callable[[NDArray[np.float32]], NDArray[np.uint8]],
) -> Compensation | None:
    """What the source's pictures need; `None` where no face is found in them again.

    `look` finds the face; `render` takes landmarks (N, 478, 3) in pixels of the source's picture,
    and gives pictures (N, S, S, 3) of its crop.
    """
    model, person = retargeter.model, retargeter.source
    faces = _probes(retargeter)
    count = len(faces)
    rotation, scale, translation = (
        np.repeat(value, count, axis=0)
        for value in (person.rotation, person.scale, person.translation)
    )
    landmarks = from_frame(faces, rotation, scale, translation).astype(np.float32)
    pictures = render(landmarks)
    wanted = source.crop.to_crop(landmarks, pictures.shape[1])
    looks = [
        look(picture, FaceSquare.around(points))
        for picture, points in zip(pictures, wanted, strict=True)
    ]
    found = np.array([presence > LEAST_PRESENCE for _, presence in looks])
    if found.sum() < count / 2:
        return None
    seen = fit_frames(model, np.stack([points for points, _ in looks])[found], person.identity)
    shown = features(still_faces(model, person))
    return Compensation.of_probes(
        features(faces[found]) - shown, features(still_faces(model, seen)) - shown
    )


def _probes(retargeter: Retargeter) -> Floats:
    """The source's faces (N, 478, 3) in the model frame under each of `PROBES`."""
    model = retargeter.model
    amounts = np.zeros((len(PROBES), len(model.blendshape_rest)), np.float32)
    for row, probe in zip(amounts, PROBES, strict=True):
        for numbers, amount in probe.items():
            row[list(numbers)] = amount
    frames = retargeter.source.frames(np.zeros(len(PROBES), np.intp))
    frames.expression[:] = retargeter.rest.expression + amounts @ model.blendshape_effect
    gaps = np.maximum(apertures.gaps(still_faces(model, frames)), 0)
    return still_faces(model, with_gaps(model, frames, gaps))
