"""Adaptation to a person, and the start that makes it short."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.regions import KINDS, PATCHES, Kind
from metaportrait_cli.networks.mouth import REGION_NETWORKS
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.regions import PATCH_CHANNELS, RegionConfig, RegionNetwork
from metaportrait_cli.render.compact import region_networks
from metaportrait_cli.training.adapt import Adaptation, AdaptConfig
from metaportrait_cli.training.data.patches import CHANNELS, Patches
from metaportrait_cli.training.meta import (
    MetaTraining,
    base_of_start,
    move,
    patches_of,
    people_with_patches,
    train_meta,
)
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.training.regions import learnt_patches
from metaportrait_cli.weights.join import join_files
from metaportrait_cli.weights.store import save_networks

from .in_pieces import same_in_pieces

CPU = torch.device("cpu")
BATCH: dict[Kind, int] = {"mouth": 4, "eyes": 4}
META = MetaTraining(adapt=AdaptConfig(batch=BATCH), steps=4, people=2, inner=2)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    networks: dict[str, Network] = {
        kind: REGION_NETWORKS[kind](RegionConfig(patch=PATCHES[kind], widths=(8, 16), code_dim=8))
        for kind in KINDS
    }
    save_networks(tmp_path / "base.safetensors", networks, architecture="compact")
    return tmp_path / "base.safetensors"


@pytest.fixture
def patches() -> dict[Kind, Patches]:
    """Three people, whose mouths and eyes are all redder than the warp has them; one has few."""
    draw = np.random.default_rng(0)
    person = np.repeat([0, 1, 2], [10, 10, 3]).astype(np.int32)
    identity = np.zeros((3, 128), np.float32)
    found: dict[Kind, Patches] = {}
    for kind in KINDS:
        inputs = np.zeros((len(person), 64, 64, CHANNELS[kind]), np.uint8)
        shape = (*inputs.shape[:3], PATCH_CHANNELS)
        inputs[..., :PATCH_CHANNELS] = draw.integers(60, 160, shape, np.uint8)
        target = inputs[..., :3] + np.array([40, 0, 0], np.uint8)
        found[kind] = Patches(inputs, target, person, identity)
    return found


def adaptation(
    networks: dict[Kind, RegionNetwork], patches: dict[Kind, Patches], config: AdaptConfig
) -> Adaptation:
    return Adaptation(networks, patches, config=config, perceptual=None, device=CPU, seed=1)


def test_a_person_is_learnt_and_the_base_stays(base: Path, patches: dict[Kind, Patches]) -> None:
    networks = region_networks(base)
    kept = {k: v.clone() for k, v in networks["mouth"].state_dict().items()}
    under_way = adaptation(networks, patches, AdaptConfig(batch=BATCH, lr=3e-3))
    losses = [under_way.advance() for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    for name, value in networks["mouth"].state_dict().items():
        assert torch.equal(value, kept[name])
    deltas = under_way.deltas()
    assert all(name.split(".")[1] in AdaptConfig().trained for name in deltas)
    assert deltas["mouth.head.weight"].abs().max() > 0
    adapted = under_way.adapted()["mouth"].state_dict()
    torch.testing.assert_close(
        adapted["head.weight"], kept["head.weight"] + deltas["mouth.head.weight"]
    )
    torch.testing.assert_close(adapted["enter.conv.weight"], kept["enter.conv.weight"])


def test_the_same_seed_learns_the_same(base: Path, patches: dict[Kind, Patches]) -> None:
    found = []
    for _ in range(2):
        under_way = adaptation(region_networks(base), patches, AdaptConfig(batch=BATCH))
        for _ in range(3):
            under_way.advance()
        found.append(under_way.deltas())
    for name, delta in found[0].items():
        assert torch.equal(delta, found[1][name]), name


def test_the_start_moves_towards_the_adapted_weights(base: Path) -> None:
    networks = region_networks(base)
    before = networks["mouth"].head.weight.detach().clone()
    ones = torch.ones_like(before)
    move(networks, [{"mouth.head.weight": ones}, {"mouth.head.weight": 3 * ones}], rate=0.5)
    torch.testing.assert_close(networks["mouth"].head.weight.detach(), before + 1.0)


def test_people_with_too_little_are_left_out(patches: dict[Kind, Patches]) -> None:
    assert people_with_patches(patches) == [0, 1]
    one = patches_of(patches, 1)
    own = patches["eyes"].person == 1
    np.testing.assert_array_equal(one["eyes"].inputs, patches["eyes"].inputs[own])


def test_a_start_is_found_from_which_people_are_learnt_sooner(
    base: Path, patches: dict[Kind, Patches], tmp_path: Path
) -> None:
    config = replace(META, adapt=AdaptConfig(batch=BATCH, lr=3e-3), steps=6, inner=6, rate=1.0)
    train_meta(
        config,
        base,
        region_networks(base),
        patches,
        tmp_path / "run",
        options=RunOptions(),
        perceptual=None,
    )
    start = tmp_path / "run" / "last.safetensors"
    first = [
        adaptation(region_networks(each), patches, config.adapt).advance() for each in (base, start)
    ]
    assert first[1] < 0.95 * first[0]
    digest = hashlib.sha256(base.read_bytes()).hexdigest()
    half = join_files([start], tmp_path / "half.safetensors", half=True)
    assert base_of_start(start) == base_of_start(half) == digest
    assert base_of_start(base) == ""


def test_from_a_start_the_deltas_are_still_those_of_the_base(
    base: Path, patches: dict[Kind, Patches]
) -> None:
    networks, start = region_networks(base), region_networks(base)
    with torch.no_grad():
        start["mouth"].head.weight.add_(1.0)
    under_way = Adaptation(
        networks, patches, config=AdaptConfig(), perceptual=None, device=CPU, seed=1, start=start
    )
    torch.testing.assert_close(
        under_way.deltas()["mouth.head.weight"],
        torch.ones_like(networks["mouth"].head.weight),
    )


def test_stopping_and_going_on_is_the_same_as_not_stopping(
    base: Path, patches: dict[Kind, Patches], tmp_path: Path
) -> None:
    def run(folder: Path, stop: int | None) -> None:
        train_meta(
            META,
            base,
            region_networks(base),
            patches,
            folder,
            options=RunOptions(stop_at=stop),
            perceptual=None,
        )

    same_in_pieces(run, tmp_path, stop=2)


def test_without_patches_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train regions"):
        learnt_patches(tmp_path)
