"""What is lost on the way is found by probes, with an invented renderer that loses a known part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.motion.alignment import from_frame, to_frame
from metaportrait_cli.motion.features import FEATURES, feature_operator, features
from metaportrait_cli.motion.fitting import reconstruct, still_faces
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.retarget import Retargeter
from metaportrait_cli.pipeline.compensation import PROBES, compensation_of

WEIGHTS = Path(__file__).parents[2] / "weights" / "morphable.safetensors"
SIDE = 128


class Lossy:
    """Renders pictures of nothing, and sees faces in them that lost a part of each feature."""

    def __init__(self, source: Source, retargeter: Retargeter, gains, presence: float) -> None:
        self.source, self.retargeter = source, retargeter
        self.gains, self.presence = gains, presence

    def render(self, landmarks):
        model, person = self.retargeter.model, self.retargeter.source
        pose = (person.rotation, person.scale, person.translation)
        faces = to_frame(landmarks, *pose)
        change = features(faces) - features(still_faces(model, person))
        lost = ((self.gains - 1) * change) @ feature_operator(model)
        faces[:, : model.expression_basis.shape[1]] += np.tensordot(
            lost, model.expression_basis, axes=1
        )
        shown = from_frame(faces, *pose).astype(np.float32)
        self.shown = self.source.crop.to_crop(shown, SIDE)
        pictures = np.zeros((len(landmarks), SIDE, SIDE, 3), np.uint8)
        pictures[:, 0, 0, 0] = np.arange(len(landmarks))
        return pictures

    def look(self, image, region):
        assert 0.3 * SIDE < region.side < 2 * SIDE
        return self.shown[image[0, 0, 0]], self.presence


@pytest.fixture
def opened() -> tuple[Source, Retargeter]:
    model = MorphableModel.load(WEIGHTS)
    points = 60 * model.mean + np.array([120, 100, 0], np.float32)
    face = Face.of(points.astype(np.float32), model.blendshape_rest, 1.0)
    picture = np.zeros((200, 240, 3), np.uint8)
    crop = Crop.around(face.points, within=(240, 200))
    source = Source(Path("face.png"), picture, face, 1, crop)
    retargeter = Retargeter(
        model=model, source_landmarks=face.points, source_blendshapes=face.blendshapes[None]
    )
    return source, retargeter


def test_probes_find_what_is_lost(opened: tuple[Source, Retargeter]) -> None:
    gains = np.linspace(0.72, 1.0, len(FEATURES))
    lossy = Lossy(*opened, gains, presence=1.0)
    found = compensation_of(*opened, lossy.look, lossy.render)
    assert found is not None
    wanted = [
        1.0 if "eye" in feature else 1 / gain for feature, gain in zip(FEATURES, gains, strict=True)
    ]
    np.testing.assert_allclose(found.factors, wanted, atol=0.12)
    assert len(lossy.shown) == len(PROBES)


def test_no_face_in_the_pictures_asks_for_nothing(opened: tuple[Source, Retargeter]) -> None:
    lossy = Lossy(*opened, np.full(len(FEATURES), 0.5), presence=0.1)
    assert compensation_of(*opened, lossy.look, lossy.render) is None


def test_probes_leave_the_source_as_it_is(opened: tuple[Source, Retargeter]) -> None:
    source, retargeter = opened
    before = reconstruct(retargeter.model, retargeter.source)
    lossy = Lossy(*opened, np.ones(len(FEATURES)), presence=1.0)
    compensation_of(*opened, lossy.look, lossy.render)
    np.testing.assert_array_equal(reconstruct(retargeter.model, retargeter.source), before)
    np.testing.assert_allclose(before[0], source.face.points, atol=1.5)
