"""Motion that is shown as it comes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face.face import Face
from metaportrait_cli.motion.causal import (
    PATIENCE_SECONDS,
    REFERENCE_FRAMES,
    CausalMotion,
    OneEuro,
)
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.retarget import Retargeter

FRAME = 1 / 25


@pytest.fixture(scope="module")
def retargeter(portrait_face: Face) -> Retargeter:
    return Retargeter(
        model=MorphableModel.bundled(),
        source_landmarks=portrait_face.points,
        source_blendshapes=portrait_face.blendshapes[None],
    )


@pytest.fixture
def motion(retargeter: Retargeter) -> CausalMotion:
    return CausalMotion(retargeter)


def moved_by(face: Face, shift: list[float]) -> Face:
    return replace(face, points=face.points + np.array(shift, np.float32))


def rested(motion: CausalMotion, face: Face) -> NDArray[np.float32]:
    """What is shown when the person has been seen at rest."""
    shown = motion(face, FRAME)
    while motion.waiting:
        shown = motion(face, FRAME)
    return shown


def test_filter_steadies_noise_and_lets_a_jump_pass() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, (200, 3)).astype(np.float32)
    noise[100:, 1] += 5
    steady = OneEuro(cutoff=1.0)
    shown = np.stack([steady(values, FRAME) for values in noise])
    assert shown[20:, 0].std() < 0.7 * noise[20:, 0].std()
    assert shown[101, 1] > 4.5
    assert abs(shown[101, 0]) < 0.2


def test_source_rests_until_the_person_is_known(motion: CausalMotion, portrait_face: Face) -> None:
    for _ in range(REFERENCE_FRAMES - 1):
        shown = motion(portrait_face, FRAME)
        assert motion.waiting
        np.testing.assert_allclose(shown[:, :2], portrait_face.points[:, :2], atol=0.5)
    shown = motion(portrait_face, FRAME)
    assert not motion.waiting
    np.testing.assert_allclose(shown[:468, :2], portrait_face.points[:468, :2], atol=1.0)


def test_a_head_that_moves_moves_the_source_at_once(
    motion: CausalMotion, portrait_face: Face
) -> None:
    at_rest = rested(motion, portrait_face)
    moved = moved_by(portrait_face, [12, 0, 0])
    shown = at_rest
    for _ in range(3):
        shown = motion(moved, FRAME)
    shift = (shown - at_rest)[:, :2].mean(0)
    assert 9 < shift[0] < 13
    assert abs(shift[1]) < 1
    motion.strength = 0
    np.testing.assert_allclose(motion(moved, FRAME), at_rest, atol=0.5)


def test_strength_is_each_motions_own(retargeter: Retargeter) -> None:
    first, second = CausalMotion(retargeter), CausalMotion(retargeter)
    first.strength = 0.3
    assert second.strength == 1


def test_a_lost_face_is_held_then_goes_to_rest(motion: CausalMotion, portrait_face: Face) -> None:
    at_rest = rested(motion, portrait_face)
    moved = moved_by(portrait_face, [12, 0, 0])
    shown = at_rest
    for _ in range(5):
        shown = motion(moved, FRAME)
    assert np.array_equal(motion(None, FRAME), shown)
    held = shown
    for _ in range(round((PATIENCE_SECONDS + 1.5) / FRAME)):
        held = motion(None, FRAME)
    np.testing.assert_allclose(held, at_rest, atol=0.5)


def test_a_new_reference_counts_from_there(motion: CausalMotion, portrait_face: Face) -> None:
    at_rest = rested(motion, portrait_face)
    motion.take_reference()
    assert motion.waiting
    elsewhere = moved_by(portrait_face, [30, 10, 0])
    np.testing.assert_allclose(rested(motion, elsewhere)[:, :2], at_rest[:, :2], atol=1.0)
