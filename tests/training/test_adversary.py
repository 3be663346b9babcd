"""The adversary of the region networks learns, and teaches only the network it judges."""

from __future__ import annotations

import torch

from metaportrait_cli.networks.regions import MAPS, PATCH_CHANNELS
from metaportrait_cli.training.adversary import Adversaries, Example

CPU = torch.device("cpu")


def test_it_learns_to_tell_grey_patches_from_bright_ones() -> None:
    torch.manual_seed(0)
    adversaries = Adversaries(("mouth",), device=CPU)
    inputs = torch.ones(8, PATCH_CHANNELS, 64, 64)  # lips everywhere

    def example() -> Example:
        teeth = 0.5 + torch.rand(8, 3, 64, 64) / 2
        return Example(teeth / 2, teeth, inputs)

    losses = [float(adversaries.learn({"mouth": example()})["mouth_adversary"]) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    made = example()
    true = Example(made.target, made.target, inputs)
    found, best = (
        adversaries.terms("mouth", each, adversarial=1.0, matching=1.0) for each in (made, true)
    )
    assert found["adversarial"] > best["adversarial"]
    assert found["matching"] > best["matching"] == 0


def test_it_looks_at_lips_alone_and_leads_to_the_image_not_to_itself() -> None:
    adversaries = Adversaries(("mouth",), device=CPU)
    inputs = torch.zeros(1, PATCH_CHANNELS, 64, 64)
    inputs[:, MAPS.start, 24:40, 16:48] = 1
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    made = Example(image, torch.rand(1, 3, 64, 64), inputs)
    terms = adversaries.terms("mouth", made, adversarial=0.3, matching=1.0)
    torch.stack(list(terms.values())).sum().backward()
    assert image.grad is not None
    assert image.grad[..., 24:40, 16:48].abs().max() > 0
    assert image.grad[..., :16, :].abs().max() == 0
    assert all(parameter.grad is None for parameter in adversaries.parameters())
