"""The few-shot stage: where it starts, what it changes, how long it takes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from metaportrait_cli.face.landmark_image import LINES68, POINTS68, landmark_image
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.fewshot import Discriminator, Embedder, FewShotConfig, Generator
from metaportrait_cli.training.fewshot import FewShotWeights
from metaportrait_cli.training.fewshot_person import (
    FewShotNetworks,
    FewShotPersonConfig,
    FewShotStage,
    PersonPictures,
    steps_for,
)

TINY = FewShotConfig(
    size=32, widths=(8, 8, 16, 16), halvings=2, blocks=1, attention=8, attention_up=16
)
CONFIG = FewShotPersonConfig(batch=2, lr=5e-3, average=0.5, weights=FewShotWeights(features=0.0))


@pytest.fixture
def networks() -> FewShotNetworks:
    torch.manual_seed(0)
    return FewShotNetworks(
        Embedder(TINY).eval(), Generator(TINY).eval(), Discriminator(TINY).eval()
    )


@pytest.fixture
def known() -> PersonPictures:
    torch.manual_seed(1)
    pictures, landmarks = torch.randint(0, 255, (2, 3, 3, 32, 32), dtype=torch.uint8)
    return PersonPictures(pictures // 4, landmarks, torch.full((3, 478, 3), 16.0))


def stage(networks: FewShotNetworks, known: PersonPictures) -> FewShotStage:
    return FewShotStage(
        networks,
        known,
        config=CONFIG,
        perceptual=None,
        device=torch.device("cpu"),
        seed=0,
    )


def test_more_pictures_bear_more_steps() -> None:
    assert [steps_for(n) for n in (1, 30, 500)] == [125, 230, 230]
    assert 125 < steps_for(8) < steps_for(16) < 230


def personal_w(under_way: FewShotStage) -> torch.Tensor:
    """The critic's w' (N,) of the person."""
    return (under_way._critic.w0 + under_way._own[0]).detach()


def test_it_starts_where_meta_learning_ended(
    networks: FewShotNetworks, known: PersonPictures
) -> None:
    begun = stage(networks, known)
    assert begun.embedding.shape == (1, 16)
    assert torch.equal(personal_w(begun), networks.discriminator.w0 + begun.embedding[0])
    assert not any(delta.any() for delta in begun.deltas().values())
    lines = torch.rand(1, 3, 32, 32)
    assert torch.equal(
        begun.generator(lines, begun.embedding), networks.generator(lines, begun.embedding)
    )


def test_it_learns_the_pictures_by_generator_style_and_critic(
    networks: FewShotNetworks, known: PersonPictures
) -> None:
    before = copy.deepcopy(networks)
    under_way = stage(networks, known)
    start = personal_w(under_way)
    losses = [float(under_way.advance()["pixel"].detach()) for _ in range(12)]
    assert losses[-1] < losses[0]
    assert not torch.equal(personal_w(under_way), start)
    deltas = under_way.deltas()
    # psi' is free, P is not.
    assert deltas["generator.projection.bias"].any()
    assert "generator.projection.weight" not in deltas
    learnt = copy.deepcopy(before.generator).eval()
    for name, value in learnt.named_parameters():
        value.data += deltas.get(f"generator.{name}", torch.zeros(()))
    lines = torch.rand(1, 3, 32, 32)
    shown, wanted = (each(lines, under_way.embedding) for each in (learnt, under_way.generator))
    assert torch.allclose(shown, wanted, atol=1e-4)
    for one, other in zip(vars(before).values(), vars(networks).values(), strict=True):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key


def test_steps_are_the_same_again(networks: FewShotNetworks, known: PersonPictures) -> None:
    runs = []
    for _ in range(2):
        under_way = stage(networks, known)
        for _ in range(3):
            under_way.advance()
        runs.append(under_way.deltas())
    for name, delta in runs[0].items():
        assert torch.equal(delta, runs[1][name])


def test_the_68_points_lie_on_jaw_brows_nose_eyes_and_lips() -> None:
    face = MorphableModel.bundled().mean[list(POINTS68)]
    assert len(set(POINTS68)) == 68
    assert (face[:17, 1].argmax(), face[0, 0] < 0 < face[16, 0]) == (8, True)  # the chin
    right, left = face[36:42, :2].mean(0), face[42:48, :2].mean(0)
    np.testing.assert_allclose(right, left * (-1, 1), atol=0.03)
    np.testing.assert_allclose(face[[30, 51, 57, 62, 66, 8], 0], 0, atol=0.03)
    assert (np.diff(face[[27, 30, 33, 51, 62, 66, 57, 8], 1]) > 0).all()
    points = MorphableModel.bundled().mean * 20 + (32, 30, 0)
    one, other = (landmark_image(points, side=64, size=64, schema=s) for s in (LINES68, "lines478"))
    assert one.max() > 128
    assert (one != other).any()
