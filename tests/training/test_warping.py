"""Training of the warping network: it learns, goes on where it stopped, judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metaportrait_cli.errors import TrainingError
from metaportrait_cli.networks.compact_warping import CompactWarping, CompactWarpingConfig
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.perceptual import MobileNetFeatures, PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.training.warping import WarpingTraining, train_warping
from metaportrait_cli.weights.store import load_network

from .in_pieces import same_in_pieces

EVERY_STEP = RunOptions(log_every=1)
TINY = WarpingTraining(
    model=CompactWarpingConfig(size=64, widths=(16, 16, 24, 24), code_dim=16),
    size=64,
    steps=4,
    batch=2,
    warm_up=1,
    held_out=0.0,
)


def test_the_flow_can_be_learnt(prepared: Path, tmp_path: Path) -> None:
    config = replace(TINY, steps=100, batch=4, lr=3e-3, average=0.9)
    records: list[Record] = []
    options = RunOptions(log_every=10)
    train_warping(config, prepared, tmp_path, options=options, on_record=records.append)
    assert records[-1]["terms"]["flow"] < 0.9 * records[0]["terms"]["flow"]
    network = load_network(CompactWarping, tmp_path / "last.safetensors", part="warping")
    assert network.config == config.model
    assert network.head.weight.any()


def test_stopping_and_going_on_is_the_same_as_not_stopping(prepared: Path, tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None) -> None:
        train_warping(TINY, prepared, folder, options=replace(EVERY_STEP, stop_at=stop))

    assert same_in_pieces(run, tmp_path, stop=2).keys() >= {"warping", "average_warping"}


def test_a_poisoned_network_stops_the_run(prepared: Path, tmp_path: Path) -> None:
    train_warping(TINY, prepared, tmp_path, options=replace(EVERY_STEP, stop_at=2))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    next(iter(state["parts"]["warping"].values())).fill_(float("nan"))
    torch.save(state, tmp_path / "state.pt")
    poisoned = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(TrainingError, match="step 3"):
        train_warping(TINY, prepared, tmp_path, options=EVERY_STEP)
    assert (tmp_path / "state.pt").read_bytes() == poisoned


def test_a_new_run_may_start_from_weights_and_compare_larger_pictures(
    prepared: Path, tmp_path: Path
) -> None:
    one = replace(EVERY_STEP, stop_at=1)
    train_warping(replace(TINY, lr=1e-2), prepared, tmp_path / "first", options=one)
    start = tmp_path / "first" / "last.safetensors"
    still = replace(TINY, size=32, lr=0.0)
    train_warping(still, prepared, tmp_path / "second", options=one, start_from=start)
    ours, theirs = load_file(tmp_path / "second" / "last.safetensors"), load_file(start)
    assert theirs["warping.head.weight"].any()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_people_kept_aside_are_judged_against_the_analytic_warp(
    prepared: Path, tmp_path: Path
) -> None:
    # "b" and "c" are held out at this share, "a" is not; "c" is a photo, which has no motion.
    config = replace(TINY, held_out=0.5)
    records: list[Record] = []
    card = train_warping(
        config,
        prepared,
        tmp_path,
        options=replace(EVERY_STEP, judge_every=2),
        perceptual=PerceptualLoss(MobileNetFeatures()),
        on_record=records.append,
    )
    judged = [record["held_out"] for record in records if "held_out" in record]
    assert len(judged) == 2
    assert judged[0]["analytic"] == judged[1]["analytic"]
    assert judged[0]["model"] != judged[1]["model"]
    assert judged[1]["model"].keys() == {"l1", "perceptual", "face_perceptual"}
    assert card["data"]["held_out"] == ["b", "c"]
    assert card["data"]["people"] == 3
    assert (tmp_path / "best.safetensors").is_file()
