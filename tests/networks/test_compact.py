"""The compact model: where it starts from, what it costs, what it accepts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from metaportrait_cli.face.conditions import GRID, Conditioner
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.detector import Face
from metaportrait_cli.networks.compact import (
    CompactConfig,
    CompactModel,
    Driving,
    Picture,
    SourceFeatures,
)
from metaportrait_cli.networks.compact_blocks import enlarge, warp
from metaportrait_cli.render.learned import stacked

TINY = CompactConfig(
    image_size=64,
    code_dim=16,
    stem_width=8,
    encoder_widths=(8, 16, 16, 24),
    warp_size=32,
    warp_widths=(16, 16, 24, 24),
    decoder_widths=(16, 16, 8),
    condition_hidden=8,
    full_width=4,
)
BUDGET = 8e9  # multiplications and additions in pairs


def example(config: CompactConfig, *, batch: int) -> tuple[Tensor, Tensor, Tensor, Driving]:
    """Random picture, landmark image, identity and driving."""
    random = torch.Generator().manual_seed(0)
    size, grid = config.image_size, config.image_size // 2
    return (
        torch.rand(batch, 3, size, size, generator=random),
        torch.rand(batch, 3, grid, grid, generator=random),
        torch.randn(batch, config.identity_dim, generator=random),
        Driving(
            flow=0.2 * torch.randn(batch, 2, grid, grid, generator=random),
            lines=torch.rand(batch, 3, grid, grid, generator=random),
            gap=torch.rand(batch, 1, grid, grid, generator=random),
        ),
    )


def trained(config: CompactConfig) -> CompactModel:
    """A model whose output layers do something."""
    torch.manual_seed(1)
    model = CompactModel(config)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def run(model: CompactModel, *, batch: int) -> tuple[SourceFeatures, Picture, Tensor]:
    image, lines, identity, driving = example(model.config, batch=batch)
    with torch.no_grad():
        features = model.encode(image, lines, identity)
        picture, motion = model(features, driving)
    return features, picture, motion.flow


def test_an_untrained_model_is_the_prior_warp_exactly() -> None:
    model = CompactModel(TINY)
    image, _, _, driving = example(TINY, batch=2)
    _, picture, flow = run(model, batch=2)
    assert torch.equal(flow, driving.flow)
    assert torch.equal(picture.image, warp(image, enlarge(driving.flow, TINY.image_size)))


def test_zero_flow_is_the_identity_and_x_comes_before_y() -> None:
    picture = torch.rand(1, 2, 6, 6)
    assert torch.allclose(warp(picture, torch.zeros(1, 2, 6, 6)), picture, atol=1e-6)
    right = torch.zeros(1, 2, 6, 6)
    right[:, 0] = 2 / 6  # one pixel to the right in the source
    assert torch.allclose(warp(picture, right)[..., :5], picture[..., 1:], atol=1e-5)


def test_shapes_and_ranges() -> None:
    features, picture, flow = run(trained(TINY), batch=3)
    assert [tuple(level.shape[1:]) for level in features.pyramid] == [
        (8, 32, 32),
        (16, 16, 16),
        (16, 8, 8),
    ]
    assert picture.image.shape == (3, 3, 64, 64)
    assert picture.mask.shape == (3, 1, 64, 64)
    assert flow.shape == (3, 2, 32, 32)
    assert float(picture.mask.min()) >= 0
    assert float(picture.mask.max()) <= 1
    blended = picture.warped + picture.mask * (picture.painted - picture.warped)
    assert torch.allclose(picture.image, blended, atol=1e-5)


def test_every_parameter_learns() -> None:
    model = trained(TINY).train()
    image, lines, identity, driving = example(TINY, batch=2)
    picture, _ = model(model.encode(image, lines, identity), driving)
    picture.image.square().mean().backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    # A bias before InstanceNorm is taken away by it.
    assert all(name.endswith("bias") for name in idle), idle


def test_one_source_serves_many_frames() -> None:
    model = trained(TINY)
    image, lines, identity, driving = example(TINY, batch=3)
    with torch.no_grad():
        one = model.encode(image[:1], lines[:1], identity[:1])
        together, _ = model(one.repeated(3), driving)
        for n in range(3):
            part = Driving(driving.flow[n, None], driving.lines[n, None], driving.gap[n, None])
            alone, _ = model(one, part)
            assert torch.allclose(alone.image, together.image[n, None], atol=1e-4)


@pytest.mark.parametrize("config", [CompactConfig(), CompactConfig.small()])
def test_a_frame_costs_no_more_than_the_budget(config: CompactConfig) -> None:
    with torch.device("meta"):
        model = CompactModel(config)
        image, grid = torch.empty(1, 3, 256, 256), torch.empty(1, 3, 128, 128)
        driving = Driving(torch.empty(1, 2, 128, 128), grid, torch.empty(1, 1, 128, 128))
        features = model.encode(image, grid, torch.empty(1, 128))
        with FlopCounterMode(display=False) as counter:
            model(features, driving)
    assert counter.get_total_flops() / 2 < BUDGET


def test_bf16_stays_finite_and_close() -> None:
    exact = trained(TINY)
    _, wanted, _ = run(exact, batch=2)
    model = trained(TINY).to(torch.bfloat16)
    _, found, flow = run(model, batch=2)
    assert found.image.dtype == torch.float32
    assert flow.dtype == torch.float32
    assert torch.isfinite(found.image).all()
    assert float((found.image - wanted.image).abs().mean()) < 0.02


def test_the_picture_size_changes_no_weights() -> None:
    small, large = CompactModel(TINY), CompactModel(replace(TINY, image_size=128))
    large.load_state_dict(small.state_dict())
    with pytest.raises(ValueError, match="32"):
        replace(TINY, image_size=100)


def test_conditions_in_half_sides(portrait_face: Face) -> None:
    points = Crop.around(portrait_face.points).to_crop(portrait_face.points, 256)
    fade = border_fade(Crop(0, 0, 256), width=256, height=256, size=GRID, share=0.12)
    conditioner = Conditioner(points, side=256, fade=fade)
    driven = points + np.array([8, 0, 0], np.float32)
    driving = stacked([conditioner(driven)], grid=GRID, device=torch.device("cpu"))
    middle = driving.flow[0, :, GRID // 2, GRID // 2]
    # Eight pixels to the right: sample eight pixels to the left, of 128 half a side.
    assert torch.allclose(middle, torch.tensor([-8 / 128, 0.0]), atol=1e-3)
    assert not driving.gap.any()
    assert driving.lines.shape == (1, 3, GRID, GRID)
