"""A person's face at rest: lips closed, brows and cheeks relaxed, eyes open.

Expression passes from one person to another as what each shows beyond their own rest. Landmarks
alone can't tell a smile from a face that is made that way; the detector's blendshapes can, for they
are learnt over many people. What they explain is taken away from what is seen, and what remains
constant over the frames is the person's rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.features import FEATURES, feature_operator, features, legible_axes
from metaportrait_cli.motion.fitting import FaceParameters, still_faces
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.turning import soft

QUIET: Final = 0.4
"""Share of a clip's frames, those with the least expression, that tell the rest: errors of what
blendshapes explain grow with it."""

BROWS: Final = 0.5
"""Share of what blendshapes explain of the brows that counts as expression. The other half is how a
person is made: over people it varies half again as much as brows move within a person."""

CERTAIN: Final = 0.5
"""Share of the rest that is believed, but for its features (see `motion.features`), which are so
whole. Half of what a clip tells of a person's rest another of their clips doesn't confirm (15
people); passed on, it would be a constant error of every result's shape."""

SQUINT: Final = 0.4
"""Share of the difference between an eye as it is seen and as blendshapes would have it at rest
that counts as expression. Blendshapes take narrow eyes for half closed ones."""

BROWS_FROM_PICTURE: Final = 0.04
"""Most that brows at rest are from where the source's picture shows them, in inter-ocular
distances, approached softly. A clip may tell of lower ones: brows moved further down lie on the
eyes' shadow, and a dark forehead on both."""

EYE_OPEN: Final = 0.15
"""Mean gap over eye width below which an eye is no narrow one but a closing one."""

_BROWS: Final = ("right_brow", "left_brow")


def at_rest(model: MorphableModel, frames: FaceParameters, blendshapes: Floats) -> FaceParameters:
    """One frame that shows the person of T frames at rest; `blendshapes` (T, B) are the frames'.

    Its expression is the rest, gaze, pose and residual are the medians.
    """
    shown = _explained(model, blendshapes)
    change = apertures.gaps(np.tensordot(shown, model.expression_basis, axes=1))  # (T, G)
    amount = np.linalg.norm(shown, axis=1)
    quiet = amount <= np.quantile(amount, QUIET)
    eyes = slice(0, apertures.LIPS.start)
    gaps = _eyes_at_rest(model, frames, change[:, eyes])
    chosen = frames.frames(quiet)
    middle = replace(
        chosen.frame(0),
        expression=_certain(model, np.median(chosen.expression - shown[quiet], axis=0)[None]),
        gaze=np.median(frames.gaze, axis=0, keepdims=True),
        residual=np.median(chosen.residual, axis=0, keepdims=True),
        scale=np.median(frames.scale, keepdims=True),
        translation=np.median(frames.translation, axis=0, keepdims=True),
    )
    wanted = np.zeros((1, len(apertures.PAIRS)), np.float32)  # lips touch
    wanted[:, eyes] = gaps
    return with_gaps(model, middle, wanted)


def near_picture(
    model: MorphableModel, rest: FaceParameters, picture: FaceParameters
) -> FaceParameters:
    """A person's rest with brows no further from where a picture shows them than it bears."""
    brows = [FEATURES.index(name) for name in _BROWS]
    at, shown = (features(still_faces(model, each))[:, brows] for each in (rest, picture))
    away = at - shown
    limit = np.full(len(brows), BROWS_FROM_PICTURE, np.float32)
    surplus = away - np.sign(away) * soft(np.abs(away), limit)
    expression = rest.expression - surplus @ feature_operator(model)[brows]
    return replace(rest, expression=expression.astype(np.float32))


def straight_ahead(source: Floats, driver: Floats) -> Floats:
    """The driver's gaze (T, 2, 2) that corresponds to the gaze that the source's picture shows.

    Where eyes look together is shown as it is: straight ahead is the same for all, over a clip
    eyes look anywhere. How far apart they look is how a person is made, for the most (over people
    it varies by 0.10, within a clip by 0.07), and how near the camera is: it counts from `driver`,
    the driver's usual gaze.
    """
    together, apart = source.mean(1, keepdims=True), driver - driver.mean(1, keepdims=True)
    return together + apart


def with_gaps(model: MorphableModel, frames: FaceParameters, gaps: Floats) -> FaceParameters:
    """The frames with lids and lips apart by gaps (T, G), the face following as it usually does."""
    missing = gaps - apertures.gaps(still_faces(model, frames))
    expression = frames.expression + missing @ apertures.gap_operator(model)
    moved = replace(frames, expression=expression.astype(np.float32))
    faces = still_faces(model, moved)
    exact = apertures.opened(faces, gaps - apertures.gaps(faces))
    return replace(moved, residual=moved.residual + exact - faces)


def _certain(model: MorphableModel, expression: Floats) -> Floats:
    """Expression (T, E) with the features it has, and less of all else."""
    axes, jitter = legible_axes(model), model.expression_jitter
    moves = (expression / jitter) @ axes.T
    moves[:, len(FEATURES) :] *= CERTAIN
    return (moves @ axes * jitter).astype(np.float32)


def _explained(model: MorphableModel, blendshapes: Floats) -> Floats:
    """Expression (T, E) that blendshapes (T, B) tell of."""
    shown = (blendshapes - model.blendshape_rest) @ model.blendshape_effect
    brows = [FEATURES.index(name) for name in _BROWS]
    raised = features(np.tensordot(shown, model.expression_basis, axes=1))[:, brows]
    return shown - (1 - BROWS) * raised @ feature_operator(model)[brows]


def _eyes_at_rest(model: MorphableModel, frames: FaceParameters, change: Floats) -> Floats:
    """Gaps (1, N) of open eyes, by pairs of lids; `change` (T, N) is what blendshapes explain."""
    faces = still_faces(model, frames)
    openness = apertures.eye_openness(faces)
    seen = apertures.gaps(faces)
    rest = []
    for side, eye in enumerate(apertures.EYES):
        closing = np.clip(2 - 2 * openness[:, side, None] / EYE_OPEN, 0, 1)
        share = SQUINT + (1 - SQUINT) * closing
        open_enough = openness[:, side] >= np.median(openness[:, side])
        rest.append(np.median((seen[:, eye] - share * change[:, eye])[open_enough], axis=0))
    return np.concatenate(rest)[None]
