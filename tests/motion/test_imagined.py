"""Motion that nobody made: possible faces in possible poses, the same for the same draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import rotation_of
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, still_faces
from metaportrait_cli.motion.imagined import TURN_LIMIT, imagined, open_face
from metaportrait_cli.motion.morphable import MorphableModel

WEIGHTS = Path(__file__).parents[2] / "weights" / "morphable.safetensors"


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.load(WEIGHTS)


@pytest.fixture(scope="module")
def rest(model: MorphableModel) -> FaceParameters:
    """The mean face with a turned head, 60 pixels between its eyes."""
    return FaceParameters(
        identity=np.zeros(model.identity_size, np.float32),
        expression=np.zeros((1, model.expression_size), np.float32),
        gaze=np.zeros((1, 2, 2), np.float32),
        rotation=rotation_of(np.radians([[10.0, 5.0, 0.0]])),
        scale=np.full(1, 60, np.float32),
        translation=np.array([[200, 180, 0]], np.float32),
        residual=np.zeros((1, 478, 3), np.float32),
        error=np.zeros(1, np.float32),
    )


def test_faces_are_possible_and_the_same_again(model: MorphableModel, rest: FaceParameters) -> None:
    found = imagined(model, rest, np.random.default_rng(1), 80)
    again = imagined(model, rest, np.random.default_rng(1), 80)
    assert found.shape == (80, 478, 3)
    assert np.array_equal(found, again)
    seen = fit_frames(model, found, rest.identity)
    turned = np.abs(seen.angles - rest.angles)
    # In another pose a fit is not exact, and angles of a turned head mix.
    assert (turned < TURN_LIMIT + np.radians(12)).all()
    assert turned.std(axis=0).min() > np.radians(1.5)
    openness = apertures.eye_openness(still_faces(model, seen))
    assert 0.05 < (openness < 0.03).all(axis=1).mean() < 0.3
    gaps = apertures.gaps(still_faces(model, seen))[:, apertures.LIPS]
    assert gaps.min() > -0.03
    assert gaps.max() > 0.15


def test_the_open_face_has_a_wide_mouth_and_shut_eyes(
    model: MorphableModel, rest: FaceParameters
) -> None:
    seen = fit_frames(model, open_face(model, rest)[None], rest.identity)
    face = still_faces(model, seen)
    assert apertures.mouth_openness(face)[0] > 0.2
    assert apertures.eye_openness(face).max() < 0.02
    assert np.allclose(seen.angles, rest.angles, atol=0.02)
