"""What is measured with a finished morphable model: the detector's noise, and what its blendshapes
do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from metaportrait_cli.errors import MediaError
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.fitting import fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.training.data.tracks import Track

FRAMES_PER_PERSON: Final = 120
"""More frames of one person tell little more; spread over all their clips."""

IDENTITY_FRAMES: Final = 24

BLENDSHAPE_RIDGE: Final = 1.0
"""Keeps the effect of blendshapes that hardly ever move small."""

RESTING: Final = 0.25
"""Quantile of a blendshape over a clip that counts as the face's rest."""

LEAST_FRAMES: Final = 10
"""Of a clip, to tell what changes in it."""


def some_frames(frames: Floats) -> Floats:
    """Enough frames, evenly spread, to know the identity."""
    count = min(len(frames), IDENTITY_FRAMES)
    return frames[np.linspace(0, len(frames) - 1, count).astype(int)]


def jitter(model: MorphableModel, tracks: Iterable[Track]) -> Floats:
    """Noise (E,) of each expression coefficient, from second differences in quiet moments."""
    second = []
    for track in tracks:
        consecutive = np.flatnonzero(
            (np.diff(track.frame, 2) == 0) & (np.diff(track.frame)[1:] == 1)
        )
        if len(consecutive):
            identity = fit_identity(model, some_frames(track.landmarks))
            fit = fit_frames(model, track.landmarks[:FRAMES_PER_PERSON], identity)
            picked = consecutive[consecutive + 2 < len(fit)]
            second.append(np.diff(fit.expression, 2, axis=0)[picked])
    if not second:
        raise MediaError("no clip has consecutive frames: the detector's noise can't be measured")
    # For normal noise a fifth of all values lie below 0.253 deviations, and the second difference
    # has sqrt(6) times the noise; larger values are motion.
    lowest = np.quantile(np.abs(np.concatenate(second)), 0.2, axis=0)
    return (lowest / 0.253 / np.sqrt(6)).astype(np.float32)


def with_blendshapes(model: MorphableModel, tracks: Iterable[Track]) -> MorphableModel:
    """The model with the effect of blendshapes, learnt from the tracks that have them.

    Within clips: what a person always shows is their face, not their expression. Without such
    tracks blendshapes have no effect.
    """
    moved, changed, resting = [], [], []
    for track in tracks:
        if track.blendshapes is None or len(track.landmarks) < LEAST_FRAMES:
            continue
        count = min(len(track.landmarks), FRAMES_PER_PERSON)
        picked = np.linspace(0, len(track.landmarks) - 1, count).astype(int)
        landmarks, shapes = track.landmarks[picked], track.blendshapes[picked]
        fit = fit_frames(model, landmarks, fit_identity(model, some_frames(landmarks)))
        moved.append(shapes - shapes.mean(0))
        changed.append(fit.expression - fit.expression.mean(0))
        resting.append(np.quantile(shapes, RESTING, axis=0))
    if not moved:
        return model
    rows = np.concatenate(moved).astype(np.float64)
    system = rows.T @ rows + BLENDSHAPE_RIDGE * np.eye(rows.shape[1])
    effect = np.linalg.solve(system, rows.T @ np.concatenate(changed))
    return replace(
        model,
        blendshape_effect=effect.astype(np.float32),
        blendshape_rest=np.median(resting, axis=0).astype(np.float32),
    )
