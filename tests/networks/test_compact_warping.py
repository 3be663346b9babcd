"""Our warping network: where it starts from, what it accepts, which files it reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.conditions import GRID, Conditioner
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.face import Face
from metaportrait_cli.networks.compact_blocks import warp
from metaportrait_cli.networks.compact_warping import (
    CompactConditions,
    CompactWarping,
    CompactWarpingConfig,
)
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import build_empty, load_network, read_header, save_networks

TINY = CompactWarpingConfig(size=32, widths=(16, 16, 24, 24), code_dim=16)


def example(*, batch: int, size: int = 64) -> tuple[Tensor, Tensor, CompactConditions]:
    """Random picture, landmark image, and conditions."""
    random = torch.Generator().manual_seed(0)
    grid = size // 2
    return (
        torch.rand(batch, 3, size, size, generator=random),
        torch.rand(batch, 3, grid, grid, generator=random),
        CompactConditions(
            flow=0.2 * torch.randn(batch, 2, grid, grid, generator=random),
            lines=torch.rand(batch, 3, grid, grid, generator=random),
            gap=torch.rand(batch, 1, grid, grid, generator=random),
        ),
    )


def trained() -> CompactWarping:
    """A network whose output layer does something."""
    torch.manual_seed(1)
    network = CompactWarping(TINY)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def run(network: CompactWarping, *, batch: int) -> Tensor:
    image, lines, driven = example(batch=batch)
    with torch.no_grad():
        return network(network.encode(image, lines), driven)


def test_an_untrained_network_gives_the_prior_exactly() -> None:
    assert torch.equal(run(CompactWarping(TINY), batch=2), example(batch=2)[2].flow)


def test_zero_flow_is_the_identity_and_x_comes_before_y() -> None:
    picture = torch.rand(1, 2, 6, 6)
    assert torch.allclose(warp(picture, torch.zeros(1, 2, 6, 6)), picture, atol=1e-6)
    right = torch.zeros(1, 2, 6, 6)
    right[:, 0] = 2 / 6  # one pixel to the right in the source
    assert torch.allclose(warp(picture, right)[..., :5], picture[..., 1:], atol=1e-5)


def test_flows_have_the_size_of_the_prior() -> None:
    network = trained()
    for size in (64, 96):
        image, lines, driven = example(batch=1, size=size)
        source = network.encode(image, lines)
        assert source.shape == (1, 16 + 6, 16, 16)
        assert network(source, driven).shape == driven.flow.shape


def test_what_the_source_adds_may_be_found_before() -> None:
    network = trained()
    image, lines, driven = example(batch=2)
    with torch.no_grad():
        source = network.encode(image, lines)
        moving = network.moving(source[:, :-3], driven)
        entered = network.entered(source) + network.entered(moving, first=source.shape[1])
        found, wanted = network.onwards(entered), network.correction(source, driven)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_every_parameter_learns() -> None:
    network = trained().train()
    image, lines, driven = example(batch=2)
    network(network.encode(image, lines), driven).square().mean().backward()
    idle = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    # A bias before a norm is nearly taken away by it.
    assert all(name.endswith("bias") for name in idle), idle


def test_one_source_serves_many_frames() -> None:
    network = trained()
    image, lines, driven = example(batch=3)
    with torch.no_grad():
        one = network.encode(image[:1], lines[:1])
        together = network(one.expand(3, -1, -1, -1), driven)
        for n in range(3):
            maps = (part[n, None] for part in (driven.flow, driven.lines, driven.gap))
            part = CompactConditions(*maps)
            assert torch.allclose(network(one, part), together[n, None], atol=1e-4)


def test_bf16_stays_finite_and_close() -> None:
    wanted, found = run(trained(), batch=2), run(trained().to(torch.bfloat16), batch=2)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert float((found - wanted).abs().mean()) < 0.02


def test_the_shipped_file_is_read_strictly_for_all_that_its_config_tells(tmp_path: Path) -> None:
    shipped = bundled_path("compact")
    fields = read_header(shipped).configs["warping"]
    network = load_network(CompactWarping, shipped, part="warping").float()
    assert network.config == CompactWarpingConfig()
    again = tmp_path / "again.safetensors"
    save_networks(again, {"warping": network}, architecture="compact")
    assert read_header(again).configs["warping"] == fields
    assert load_network(CompactWarping, again, part="warping").config == network.config
    with pytest.raises(WeightsError, match="unexpected keyword argument 'depth'"):
        build_empty(CompactWarping, {**fields, "depth": 3}, where="file")


def test_the_size_changes_no_weights() -> None:
    large = CompactWarping(replace(TINY, size=64))
    large.load_state_dict(CompactWarping(TINY).state_dict())
    with pytest.raises(ValueError, match="32"):
        replace(TINY, size=100)


def test_conditions_in_half_sides(portrait_face: Face) -> None:
    points = Crop.around(portrait_face.points).to_crop(portrait_face.points, 256)
    fade = border_fade(Crop(0, 0, 256), width=256, height=256, size=GRID, share=0.12)
    condition = Conditioner(points, side=256, fade=fade)(points + np.array([8, 0, 0], np.float32))
    # Eight pixels to the right: sample eight pixels to the left, of 128 half a side.
    np.testing.assert_allclose(condition.flow[GRID // 2, GRID // 2], [-8 / 128, 0], atol=1e-3)
    assert not condition.gap.any()
    assert condition.lines.shape == (GRID, GRID, 3)
