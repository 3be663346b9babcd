"""Training of the layers' flow: what is descended is what the renderer shows; runs go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from metaportrait_cli.face.conditions import GRID
from metaportrait_cli.networks.compact_warping import CompactWarpingConfig
from metaportrait_cli.render.flows import Uncorrected
from metaportrait_cli.render.layered import MovedCrop
from metaportrait_cli.training.data.layered_pairs import (
    CutPictures,
    LayeredPairs,
    as_layered_sample,
)
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.training.layered_warping import LayeredBatch, LayeredTraining, train_layered
from metaportrait_cli.training.place import RunOptions
from tests.face.test_correspondence import turned

from .in_pieces import same_in_pieces

TINY = LayeredTraining(
    model=CompactWarpingConfig(size=64, widths=(16, 16, 24, 24), code_dim=16),
    steps=2,
    batch=2,
    warm_up=1,
    held_out=0.0,
)


def test_what_is_compared_is_what_the_renderer_shows(prepared: Path) -> None:
    faces = Faces.load(prepared)
    faces.points[1] = turned(faces.points[0], degrees=25)
    layers = CutPictures(faces)[0]
    assert layers is not None
    sample = as_layered_sample(faces, layers, source=0, target=1)
    batch = LayeredBatch.of({k: v[None] for k, v in sample.items()}, torch.device("cpu"))
    made = batch.composed(batch.flow, torch.ones_like(batch.cover))[0].permute(1, 2, 0).numpy()
    move = MovedCrop(
        faces.images[0],
        faces.points[0],
        fade=np.ones((GRID, GRID), np.float32),
        corrections=Uncorrected(),
        layers=lambda: layers,
    )
    shown, _ = move(faces.points[1])
    assert np.abs(255 * made - shown).mean() < 2
    assert np.abs(255 * made - faces.images[0]).mean() > 8


def test_samples_are_mirrored_as_a_whole(prepared: Path) -> None:
    faces = Faces.load(prepared)
    people = sorted({clip.identity for clip in faces.clips if clip.count > 1})
    pairs = LayeredPairs(faces, people=people, length=20, seed=3)
    for index in range(4):
        sample = pairs[index]
        batch = LayeredBatch.of({k: v[None] for k, v in sample.items()}, torch.device("cpu"))
        still = batch.composed(batch.flow, torch.ones_like(batch.cover)) - batch.target
        wrong = batch.composed(-batch.flow, torch.ones_like(batch.cover)) - batch.target
        assert still.abs().mean() <= wrong.abs().mean() + 1e-3


def test_heads_that_turn_are_asked_for_more_than_they_are_there(prepared: Path) -> None:
    faces = Faces.load(prepared)
    people = sorted({clip.identity for clip in faces.clips if clip.count > 1})
    first, end = faces.ranges[[c.identity for c in faces.clips].index(people[0])]
    faces.points[end - 1] = turned(faces.points[first], degrees=22)
    pairs = LayeredPairs(faces, people=people, length=40, seed=0)
    drawn = [pairs[i]["points"].numpy()[:, 0] for i in range(16)]
    wide = [np.ptp(x) for x in drawn]
    assert sum(w < 0.97 * max(wide) for w in wide) > len(wide) / 2


def test_stopping_and_going_on_is_the_same_as_not_stopping(prepared: Path, tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None) -> None:
        train_layered(TINY, prepared, folder, options=RunOptions(log_every=1, stop_at=stop))

    assert same_in_pieces(run, tmp_path, stop=1).keys() >= {"layers", "average_layers"}


def test_people_kept_aside_are_judged_against_bare_layers(prepared: Path, tmp_path: Path) -> None:
    config = replace(TINY, held_out=0.5)  # "b" is held out, "a" is not
    options = RunOptions(judge_every=2)
    card = train_layered(config, prepared, tmp_path, options=options)
    assert card["held_out"].keys() == {"model", "layers"}
    assert (tmp_path / "best.safetensors").is_file()
