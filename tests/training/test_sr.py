"""Training of super-resolution: it learns, goes on where it stopped, and stops at nonsense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaportrait_cli.errors import TrainingError
from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig
from metaportrait_cli.training.data.runs import RunDataset, Runs, run_people
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.perceptual import MobileNetFeatures, PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.training.sr import (
    SRTraining,
    SRWeights,
    judge_sr,
    sr_terms,
    train_sr,
)
from metaportrait_cli.weights.store import load_network

from .in_pieces import same_in_pieces

EVERY_STEP = RunOptions(log_every=1)
SMALL = SRTraining(
    model=CompactSRConfig(fine_width=8, width=8, stages=1),
    steps=4,
    batch=2,
    patch=24,
    frames=3,
    warm_up=1,
    held_out=0.0,
)


def test_one_clip_can_be_learnt(runs: Path) -> None:
    loaded = Runs.load(runs)
    sample = RunDataset(
        loaded,
        people=run_people(loaded),
        length=1,
        seed=0,
        patch=24,
        frames=3,
        with_reference=1.0,
        ways=(1.0, 0.0, 0.0, 0.0),
    )[0]
    torch.manual_seed(0)
    model = CompactSR(SMALL.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(120):
        results = torch.stack([model(sample.frames), model(sample.frames, sample.reference)])
        truth = sample.truth.expand_as(results)
        terms = sr_terms(results, truth, perceptual=None, weights=SRWeights())
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    scores = judge_sr(model, [sample], perceptual=None, device=torch.device("cpu"))
    assert scores["alone"]["l1"] < 0.9 * scores["bicubic"]["l1"]
    assert scores["referred"]["l1"] < scores["alone"]["l1"]


def test_stopping_and_going_on_is_the_same_as_not_stopping(runs: Path, tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None) -> None:
        train_sr(SMALL, runs, folder, options=replace(EVERY_STEP, stop_at=stop))

    assert same_in_pieces(run, tmp_path, stop=2).keys() >= {"compact_sr", "average_compact_sr"}


def test_a_loss_that_is_not_finite_stops_the_run(runs: Path, tmp_path: Path) -> None:
    train_sr(SMALL, runs, tmp_path, options=replace(EVERY_STEP, stop_at=2))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    next(iter(state["parts"]["compact_sr"].values())).fill_(float("nan"))
    torch.save(state, tmp_path / "state.pt")
    poisoned = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(TrainingError, match="step 3"):
        train_sr(SMALL, runs, tmp_path, options=EVERY_STEP)
    assert (tmp_path / "state.pt").read_bytes() == poisoned


def test_what_a_run_leaves(runs: Path, tmp_path: Path) -> None:
    perceptual = PerceptualLoss(MobileNetFeatures())
    records: list[Record] = []
    card = train_sr(
        SMALL, runs, tmp_path, options=EVERY_STEP, perceptual=perceptual, on_record=records.append
    )
    assert card["data"]["people"] == 1
    assert {"pixel", "steady", "perceptual"} <= records[0]["terms"].keys()
    model = load_network(CompactSR, tmp_path / "last.safetensors", part="compact_sr")
    assert model.config == SMALL.model


def test_a_new_run_may_start_from_weights(runs: Path, tmp_path: Path) -> None:
    train_sr(SMALL, runs, tmp_path / "first", options=EVERY_STEP)
    start = tmp_path / "first" / "last.safetensors"
    still = replace(SMALL, lr=0.0, steps=1)
    train_sr(still, runs, tmp_path / "second", options=EVERY_STEP, start_from=start)
    theirs, ours = (
        load_network(CompactSR, path, part="compact_sr").state_dict()
        for path in (start, tmp_path / "second" / "last.safetensors")
    )
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_flicker_costs_and_a_steady_mistake_does_not() -> None:
    truth = torch.rand(1, 4, 3, 16, 16)
    flicker = 0.1 * torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1, 1)
    weights = SRWeights()
    flickering = sr_terms(truth + flicker, truth, perceptual=None, weights=weights)
    brighter = sr_terms(truth + 0.1, truth, perceptual=None, weights=weights)
    assert flickering["pixel"] == pytest.approx(float(brighter["pixel"]), rel=1e-4)
    assert flickering["steady"] > 50 * brighter["steady"]


def test_perceptual_distance_in_unit_form() -> None:
    perceptual = PerceptualLoss(MobileNetFeatures())
    picture = torch.rand(2, 3, 32, 32)
    assert perceptual.distance(picture, picture).abs().max() < 1e-5
    assert (perceptual.distance(picture.roll(3, dims=-1), picture) > 1e-4).all()
