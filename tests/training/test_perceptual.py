"""What pictures are compared by in training."""

from __future__ import annotations

import torch

from metaportrait_cli.training.perceptual import MobileNetFeatures, PerceptualLoss


def test_the_perceptual_loss_is_zero_for_the_target_and_grows_with_blur() -> None:
    torch.manual_seed(0)
    loss = PerceptualLoss(MobileNetFeatures())
    target = torch.rand(2, 3, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(target, 5, stride=1, padding=2)
    points = torch.full((2, 478, 3), 40.0)
    assert torch.allclose(loss(target, target), torch.zeros(2), atol=1e-6)
    assert (loss(blurred, target) > 0.01).all()
    assert torch.allclose(loss.in_face(target, target, points), torch.zeros(2), atol=1e-6)
    assert (loss.in_face(blurred, target, points) > 0.01).all()


def test_texture_is_what_is_there_wherever_it_is() -> None:
    torch.manual_seed(0)
    loss = PerceptualLoss(MobileNetFeatures())
    stripes = (torch.arange(64) // 4 % 2).float().expand(1, 3, 64, 64).contiguous()
    moved = stripes.roll(4, dims=-1)
    blurred = torch.nn.functional.avg_pool2d(stripes, 9, stride=1, padding=4)
    where = torch.zeros(1, 1, 64, 64)
    where[..., 16:48, 16:48] = 1
    distance, texture = loss.with_texture(moved, stripes, where)
    _, lost = loss.with_texture(blurred, stripes, where)
    assert float(texture) < 0.2 * float(lost)
    assert float(distance) > 0.01
    elsewhere = torch.where(where > 0, stripes, blurred)
    assert float(loss.with_texture(elsewhere, stripes, where)[1]) < 0.5 * float(lost)
    same = loss.with_texture(stripes, stripes, where)
    assert torch.allclose(torch.cat(same), torch.zeros(2), atol=1e-6)
