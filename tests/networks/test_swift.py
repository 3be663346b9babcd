"""Networks written down for ncnn: the same numbers as torch's, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.face.identity import identity_network
from metaportrait_cli.networks.compact_blocks import ConvBlock, ModulatedConvBlock, enlarge, warp
from metaportrait_cli.networks.swift.function import SwiftFunction
from metaportrait_cli.networks.swift.ledger import NotRecordedError
from metaportrait_cli.networks.swift.machine import Machine
from metaportrait_cli.networks.swift.recorder import recorded

Function = Callable[..., Sequence[Tensor]]


def both(function: Function, *inputs: Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What torch and ncnn make of inputs (1, …)."""
    with torch.no_grad():
        wanted = [x[0].numpy() for x in function(*inputs)]
    machine = Machine(recorded(function, inputs))
    return wanted, machine([x[0].numpy() for x in inputs])


def agree(function: Function, *inputs: Tensor) -> None:
    for wanted, got in zip(*both(function, *inputs), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4, rtol=1e-4)


def noise(*shape: int) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def test_blocks_of_our_networks() -> None:
    torch.manual_seed(0)
    down = ConvBlock(in_width=5, out_width=16, stride=2)
    up = ModulatedConvBlock(in_width=16 + 5, out_width=8, code_dim=4)
    nn.init.normal_(up.style.weight)

    def network(x: Tensor, code: Tensor) -> list[Tensor]:
        small = down(x)
        return [up(torch.cat([enlarge(small, 12), x], dim=1), code), small.mean(dim=(2, 3))]

    agree(network, noise(5, 12, 12), noise(4))


def test_what_is_done_between_them() -> None:
    ramp = torch.linspace(0, 1, 7)

    def function(x: Tensor, flow: Tensor) -> list[Tensor]:
        first, rest = x.split([1, 2], dim=1)
        masked = (1 - first) * ramp + rest[:, :, 1:-1].mean(dim=2, keepdim=True)
        masked += torch.maximum(rest, first).clamp(max=0.5) ** 2
        padded = F.pad(masked, (1, 2, 0, 1))
        chroma = (x.amax(dim=1) - x.amin(dim=1)).mean(dim=(1, 2))[:, None, None, None]
        moved = warp(x, 0.2 * flow)
        return [
            padded * chroma / 3,
            torch.sigmoid(moved) - torch.exp(-moved.abs()),
            F.pixel_shuffle(F.pixel_unshuffle(F.pad(x, (0, 1, 0, 2)), 2), 2),
            F.max_pool2d(x, 3, 2) + F.avg_pool2d(x, 3, 2, count_include_pad=False),
        ]

    agree(function, noise(3, 6, 7), noise(2, 6, 7))


def test_a_large_network_and_inputs_that_stay_as_they_are() -> None:
    network = identity_network()
    chip = noise(3, 150, 150)
    kept = chip.clone()
    agree(lambda x: [network(x)], chip)
    assert torch.equal(chip, kept)


def test_what_it_does_not_know_is_said() -> None:
    with pytest.raises(NotRecordedError, match="cumsum"):
        recorded(lambda x: [x.cumsum(dim=1)], [noise(3, 4, 4)])
    with pytest.raises(NotRecordedError, match="batch"):
        recorded(lambda x: [x.mean(dim=0)], [noise(3, 4, 4)])


def test_a_runner_takes_batches_and_falls_back_to_torch() -> None:
    torch.manual_seed(0)
    block = ConvBlock(in_width=3, out_width=8).requires_grad_(False)
    pictures = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    shift = np.full((1, 8, 1, 1), 2, np.float32)
    for function, swift in (
        (lambda x, shift: [block(x) + shift], True),
        (lambda x, shift: [(block(x) + shift).cumsum(dim=1)], False),
    ):
        run = SwiftFunction(function)
        (found,) = run(pictures, shift)
        wanted = function(torch.from_numpy(pictures), torch.from_numpy(shift))[0].numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert run.swift is swift
