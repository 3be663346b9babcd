"""Synthetic people for the tests of motion, made from the bundled morphable model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metaportrait_cli.motion.alignment import Floats, from_frame, rotation_of
from metaportrait_cli.motion.morphable import MorphableModel

WEIGHTS = Path(__file__).parents[2] / "weights" / "morphable.safetensors"

Performance = Callable[..., Floats]


@pytest.fixture(scope="session")
def model() -> MorphableModel:
    return MorphableModel.load(WEIGHTS)


@pytest.fixture(scope="session")
def person(model: MorphableModel) -> Callable[[int], Floats]:
    """Identity coefficients of an invented person."""

    def make(seed: int) -> Floats:
        return np.random.default_rng(seed).normal(size=model.identity_size).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def performance(model: MorphableModel, person: Callable[[int], Floats]) -> Performance:
    """Landmarks (T, 478, 3) in pixels of a talking, turning person; smooth in time."""

    def make(seed: int, frames: int = 60, *, scale: float = 80.0, turn: float = 0.15) -> Floats:
        rng = np.random.default_rng(1000 + seed)

        def wander(size: int) -> Floats:
            phase = rng.uniform(0, 2 * np.pi, size)
            speed = rng.uniform(0.05, 0.25, size)
            return np.sin(np.arange(frames)[:, None] * speed + phase).astype(np.float32)

        faces = model.shape(
            person(seed),
            wander(model.expression_size) * 0.7,
            wander(4).reshape(frames, 2, 2) * 0.1,
        )
        size = np.full(frames, scale, np.float32)
        place = np.array([310, 190, 0], np.float32) + 4 * wander(3)
        return from_frame(faces, rotation_of(turn * wander(3)), size, place).astype(np.float32)

    return make
