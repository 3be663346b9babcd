"""Training of folds and shading: it learns, and goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.shading import ShadingConfig
from metaportrait_cli.training import shading
from metaportrait_cli.training.data.skins import Skins
from metaportrait_cli.training.place import Place, RunOptions
from metaportrait_cli.training.shading import ShadingTask, ShadingTraining, train_shading

from .in_pieces import same_in_pieces

TINY = ShadingTraining(
    model=ShadingConfig(widths=(8, 8), patterns=4, places=2, hidden=8),
    steps=4,
    batch=2,
    warm_up=1,
    held_out=0.0,
)


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.bundled()


def creasing(model: MorphableModel, frames: int = 24) -> Skins:
    """A person whose skin has a fold in proportion to one coefficient of expression."""
    draw = np.random.default_rng(0)
    expression = np.zeros((frames, model.expression_size), np.float32)
    expression[:, 0] = draw.normal(size=frames)
    side = TINY.model.side
    light = np.full((frames, side, side), 4.0)
    light[:, 38:42, 16:48] -= 0.2 * expression[:, :1, None]
    return Skins(
        light=light.astype(np.float16),
        seen=np.full(light.shape, 255, np.uint8),
        expression=expression,
        alone=expression,
        angles=np.zeros((frames, 3), np.float32),
        clip=np.zeros(frames, np.int32),
        person=np.zeros(frames, np.int32),
    )


def test_a_fold_is_learnt(model: MorphableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shading, "JUDGED", 32)
    config = replace(TINY, steps=40, batch=4, lr=2e-2, average=0.9)
    skins = creasing(model)
    place = Place(torch.device("cpu"))
    task = ShadingTask(config, skins, skins, model=model, place=place)
    for number, batch in enumerate(task.batches(range(config.steps))):
        task.step(batch, number)
    scores = task.judge()
    assert task.merit(scores) < 0.7
    assert scores["shading"]["slope"] == pytest.approx(1, abs=0.4)


def test_stopping_and_going_on_is_the_same_as_not_stopping(prepared: Path, tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None) -> None:
        train_shading(TINY, prepared, folder, options=RunOptions(log_every=1, stop_at=stop))

    assert same_in_pieces(run, tmp_path, stop=2).keys() >= {"shading", "average_shading"}
