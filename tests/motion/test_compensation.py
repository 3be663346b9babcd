from __future__ import annotations

import numpy as np
import pytest

from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.compensation import EXTRA, MOST, Compensation
from metaportrait_cli.motion.features import FEATURES, feature_operator, features
from metaportrait_cli.motion.morphable import MorphableModel

COUNT = len(FEATURES)
BROWS = [FEATURES.index(name) for name in ("right_brow", "left_brow")]
EYES = [FEATURES.index(name) for name in ("right_eye", "left_eye")]


@pytest.fixture
def driven() -> Floats:
    return np.random.default_rng(0).normal(size=(8, COUNT)) * 0.1


def test_what_is_lost_is_asked_for(driven: Floats) -> None:
    gains = np.linspace(0.75, 1.1, COUNT)
    gains[BROWS], gains[EYES] = 0.8, 1
    found = Compensation.of_probes(driven, driven * gains).factors
    np.testing.assert_allclose(found, np.maximum(1 / gains, 1), atol=0.03)


def test_doubtful_probes_ask_for_little(driven: Floats) -> None:
    assert Compensation.of_probes(driven, 0.2 * driven).factors.max() <= MOST
    noise = np.random.default_rng(1).normal(size=driven.shape) * 0.1
    np.testing.assert_allclose(Compensation.of_probes(driven, noise).factors, 1)
    still = Compensation.of_probes(driven * 0.02, driven * 0.01).factors
    np.testing.assert_allclose(still, 1, atol=0.05)


def test_eyes_need_nothing(driven: Floats) -> None:
    found = Compensation.of_probes(driven, 0.7 * driven).factors
    np.testing.assert_array_equal(found[EYES], 1)


def faces(model: MorphableModel, changes: Floats) -> tuple[Floats, Floats]:
    """Meshes (T, M, 3) with features changed by (T, F), and the mean face (1, P, 3)."""
    moves = np.tensordot(changes @ feature_operator(model), model.expression_basis, axes=1)
    return model.mean[None, : moves.shape[1]] + moves, model.mean[None]


def test_each_feature_is_made_larger_by_its_factor(model: MorphableModel) -> None:
    changes = np.eye(COUNT) * 0.03
    factors = np.linspace(1.0, 1.4, COUNT).astype(np.float32)
    meshes, shown = faces(model, changes)
    found = features(Compensation(factors).applied(model, meshes, shown)) - features(shown)
    np.testing.assert_allclose(np.diag(found), 0.03 * factors, rtol=0.08)
    assert np.abs(found - np.diag(np.diag(found))).max() < 0.004


def test_extra_stays_within_its_limit(model: MorphableModel) -> None:
    changes = np.zeros((1, COUNT))
    width = FEATURES.index("mouth_width")
    changes[0, width] = 0.6
    meshes, shown = faces(model, changes)
    asked = Compensation(np.full(COUNT, 1.5, np.float32)).applied(model, meshes, shown)
    extra = features(asked) - features(meshes)
    assert 0.07 < extra[0, width] <= EXTRA[width]


def test_closed_stays_closed(model: MorphableModel) -> None:
    changes = np.zeros((1, COUNT))
    changes[0, FEATURES.index("mouth_width")] = 0.1
    meshes, _ = faces(model, changes)
    meshes = apertures.opened(meshes, -apertures.gaps(meshes))
    smiling = model.mean[None].copy()
    smiling = apertures.opened(smiling, np.full((1, len(apertures.PAIRS)), 0.05))
    asked = Compensation(np.full(COUNT, 1.5, np.float32)).applied(model, meshes, smiling)
    np.testing.assert_allclose(apertures.gaps(asked), 0, atol=1e-5)
    assert (features(asked) - features(meshes))[0, FEATURES.index("mouth_width")] > 0.02
