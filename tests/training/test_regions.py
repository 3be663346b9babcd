"""Training of the region networks: patches are made once, they are learnt from, runs go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.regions import PATCHES
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.mouth import MouthNetwork
from metaportrait_cli.networks.regions import OPENING, UNKNOWN, RegionConfig
from metaportrait_cli.render.mouths.teeth import bundled_teeth
from metaportrait_cli.training.critic import CriticTraining, Critique, MouthCriticConfig
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.training.data.patches import CHANNELS, Patches, make_patches
from metaportrait_cli.training.loop import Record
from metaportrait_cli.training.place import Place, RunOptions
from metaportrait_cli.training.regions import RegionTraining, drawn, faded, train_regions
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network, read_header, save_networks

from .in_pieces import same_in_pieces

CONFIG = RegionTraining(
    model=RegionConfig(widths=(8, 16, 16), code_dim=8), steps=4, batch=4, warm_up=1, held_out=0.0
)


@pytest.fixture(scope="module")
def identity() -> IdentityNetwork:
    return load_network(IdentityNetwork, bundled_path("identity"), part="identity").float()


def test_patches_show_the_face_under_the_warp_and_as_it_was(
    prepared: Path, identity: IdentityNetwork
) -> None:
    made = make_patches(
        Faces.shards(prepared), people=["a"], identity=identity, teeth=bundled_teeth(), seed=0
    )
    mouth, eyes = made["mouth"], made["eyes"]
    for kind, side in PATCHES.items():
        assert made[kind].inputs.shape[1:] == (side, side, CHANNELS[kind])
    assert len(eyes.inputs) == 2 * len(mouth.inputs) > 0
    assert mouth.identity.shape == (1, 128)
    warped, own = mouth.inputs[..., :3].astype(float), mouth.inputs[..., 3:6].astype(float)
    # The warp brings the source nearer to the target than it was.
    assert np.abs(warped - mouth.target).mean() < np.abs(own - mouth.target).mean()


def test_it_learns_and_leaves_weights_and_a_card(
    prepared: Path, tmp_path: Path, identity: IdentityNetwork
) -> None:
    records: list[Record] = []
    card = train_regions(
        replace(CONFIG, steps=36, batch=6, lr=5e-3),
        prepared,
        tmp_path,
        identity=identity,
        teeth=bundled_teeth(),
        options=RunOptions(log_every=12),
        on_record=records.append,
    )
    terms = [record["terms"] for record in records if "terms" in record]
    for name in ("mouth_inside", "eyes_inside"):
        assert terms[-1][name] < 0.9 * terms[0][name], name
    assert card["step"] == 36
    header = read_header(tmp_path / "last.safetensors")
    assert header.architecture == "compact"
    assert sorted(header.configs) == ["eyes", "mouth"]


@pytest.mark.parametrize("critic", [None, CriticTraining(heard=1, penalty_every=2)])
def test_stopping_and_going_on_is_the_same_as_not_stopping(
    prepared: Path, tmp_path: Path, identity: IdentityNetwork, critic: CriticTraining | None
) -> None:
    config = replace(CONFIG, kinds=("mouth",), critic=critic)

    def run(folder: Path, stop: int | None) -> None:
        train_regions(
            config,
            prepared,
            folder,
            identity=identity,
            teeth=bundled_teeth(),
            options=RunOptions(stop_at=stop),
        )

    same_in_pieces(run, tmp_path, stop=2)


def test_a_critic_tells_painted_mouths_from_real_ones() -> None:
    """Real mouths have stripes, painted ones the stripes' mean."""
    place, steps = Place(torch.device("cpu"), bf16=False), 60
    critic = CriticTraining(model=MouthCriticConfig(widths=(8, 16)), lr=5e-3, heard=1)
    critique = Critique(critic, replace(CONFIG, steps=steps), place)
    target = torch.full((2, 3, 128, 128), 0.5)
    target[..., ::4] = 0.9
    inputs = torch.zeros(2, 27, 128, 128)
    inputs[:, [OPENING, UNKNOWN], 40:80, 32:96] = 1
    image = torch.full_like(target, 0.6).requires_grad_()
    learnt: list[float] = []
    for number in range(steps):
        critique.terms(image, target, inputs, number)
        learnt.append(float(critique.learn(number)["critic"].detach()))
    assert learnt[-1] < learnt[0] - 0.1
    terms = critique.terms(image, target, inputs, steps)
    (slope,) = torch.autograd.grad(terms["adversarial"] + terms["features"], image)
    assert (slope[..., 40:80, 40:88] != 0).float().mean() > 0.95
    assert not slope[..., :30, :].any()  # the skin is none of its business
    inputs[:, UNKNOWN] = 0
    assert not critique.terms(image, target, inputs, steps)
    assert not critique.learn(steps)


def test_a_photo_is_drawn_less_often_than_a_clip() -> None:
    shown = np.repeat([0, 1], [1, 16]).astype(np.uint8)
    inputs = np.broadcast_to(shown[:, None, None, None], (17, 4, 4, 11))
    patches = Patches(
        inputs=inputs,
        target=inputs[..., :3],
        person=shown.astype(np.int32),
        identity=np.zeros((2, 128), np.float32),
    )
    device = torch.device("cpu")
    _, target, _ = drawn(patches, np.random.default_rng(0), 2000, "eyes", device)
    assert float((target > 0).float().mean()) == pytest.approx(0.8, abs=0.05)


def test_light_and_colour_vary_together_and_some_samples_have_none() -> None:
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    picture = torch.rand(200, 3, 4, 4)
    inputs = torch.cat([picture, picture, torch.rand(200, 5, 4, 4)], dim=1)
    changed, target = faded(inputs, picture, draw, "eyes")
    assert torch.equal(changed[:, :3], target)
    assert torch.equal(changed[:, 3:6], target)
    assert torch.equal(changed[:, 6:], inputs[:, 6:])
    colourless = (target.amax(dim=1) - target.amin(dim=1)).amax(dim=(1, 2)) < 1e-5
    assert 0.05 < colourless.float().mean() < 0.25


def test_weights_of_another_network_are_no_start(
    prepared: Path, tmp_path: Path, identity: IdentityNetwork
) -> None:
    other = MouthNetwork(RegionConfig(widths=(8, 16), code_dim=8))
    path = tmp_path / "other.safetensors"
    save_networks(path, {"mouth": other}, architecture="compact")
    with pytest.raises(WeightsError, match="its mouth network is built otherwise"):
        train_regions(
            replace(CONFIG, kinds=("mouth",)),
            prepared,
            tmp_path / "run",
            identity=identity,
            teeth=bundled_teeth(),
            options=RunOptions(),
            start_from=path,
        )
