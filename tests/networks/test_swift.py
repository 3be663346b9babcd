"""Networks written down for ncnn: the same numbers as torch's, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.face.face import Face
from metaportrait_cli.face.identity import chip_to_picture, cut_chip, cut_chips, identity_network
from metaportrait_cli.networks.compact_blocks import ConvBlock, ModulatedConvBlock, enlarge, warp
from metaportrait_cli.networks.swift.function import Running, SwiftFunction
from metaportrait_cli.networks.swift.ledger import NotRecordedError
from metaportrait_cli.networks.swift.machine import Machine
from metaportrait_cli.networks.swift.program import Program
from metaportrait_cli.networks.swift.quantized import convolutions, key_of, quantized
from metaportrait_cli.networks.swift.recorder import recorded
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.weights.shelf import WeightsShelf

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


def test_convolutions_of_few_pixels() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(32, 24, 3, padding=1)
    for side in (4, 5):
        agree(lambda x: [convolution(x)], noise(32, side, side))


def test_pictures_may_have_any_size_where_it_is_said() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4 * 3, 24, 3, padding=1)

    def function(planes: Tensor) -> list[Tensor]:
        return [convolution(F.pixel_unshuffle(planes / 255, 2))]

    run = SwiftFunction(lambda: function, any_size=True)
    for high, wide in ((16, 20), (8, 44), (6, 6)):
        planes = noise(3, high, wide)
        (found,) = run(planes.numpy())
        assert run.swift
        with torch.no_grad():
            np.testing.assert_allclose(found, function(planes)[0], atol=1e-5)


def test_inputs_stay_as_they_are() -> None:
    x = noise(3, 5, 7)
    machine = Machine(recorded(lambda x: [x.clone().mul_(2).add_(1).clamp_(0, 1)], [x]))
    given = x[0].numpy().copy()
    first = machine([given])
    np.testing.assert_array_equal(given, x[0].numpy())
    np.testing.assert_array_equal(machine([given])[0], first[0])


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


class Kept:
    """A shelf in memory."""

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}

    def holds(self, name: str) -> bool:
        return name in self.programs

    def get(self, name: str) -> Program | None:
        return self.programs.get(name)

    def put(self, name: str, program: Program) -> None:
        self.programs[name] = program


def test_a_function_takes_batches_and_falls_back_to_torch() -> None:
    torch.manual_seed(0)
    block = ConvBlock(in_width=3, out_width=8).requires_grad_(False)
    pictures = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    shift = np.full((1, 8, 1, 1), 2, np.float32)

    def known(x: Tensor, shift: Tensor) -> list[Tensor]:
        return [block(x) + shift]

    def unknown(x: Tensor, shift: Tensor) -> list[Tensor]:
        return [(block(x) + shift).cumsum(dim=1)]

    for function, swift in ((known, True), (unknown, False)):
        run = SwiftFunction(lambda function=function: function)
        (found,) = run(pictures, shift)
        wanted = function(torch.from_numpy(pictures), torch.from_numpy(shift))[0].numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert run.swift is swift


def test_what_is_on_the_shelf_is_not_made_again() -> None:
    shelf, made = Kept(), []

    def make() -> Function:
        made.append(1)
        return lambda x: [x * 2]

    pictures = np.ones((1, 3, 4, 4), np.float32)
    for _ in range(2):
        run = SwiftFunction(make, Running(shelf=shelf), name="twice")
        np.testing.assert_array_equal(run(pictures)[0], 2 * pictures)
    assert len(made) == 1
    # Of another size it is another program.
    run = SwiftFunction(make, Running(shelf=shelf), name="twice")
    assert run(np.ones((1, 3, 2, 2), np.float32))[0].shape == (1, 3, 2, 2)
    assert len(made) == 2


def test_the_shelf_keeps_whole_programs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "weights"
    weights.write_bytes(b"some")
    shelf = WeightsShelf(weights)
    program = recorded(lambda x: [x * 2], [noise(3, 4, 4)])
    assert shelf.get("twice") is None
    shelf.put("twice", program)
    assert shelf.holds("twice")
    assert WeightsShelf(weights).get("twice") == program
    weights.write_bytes(b"others")
    assert not WeightsShelf(weights).holds("twice")
    (kept,) = (tmp_path / "cache" / "metaportrait" / "swift").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert shelf.get("twice") is None


def test_the_shelf_of_another_user_and_of_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "weights"
    weights.write_bytes(b"some")
    shelf, program = WeightsShelf(weights), Program("text", b"weights", (), ())
    shelf.put("any", program)
    monkeypatch.setattr(Path, "touch", Mock(side_effect=PermissionError))
    assert shelf.get("any") == program
    # A container's user may have no home.
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError))
    shelf.put("any", program)
    assert shelf.get("any") is None


def test_chips_are_cut_as_they_are_where_gradients_are_wanted(
    portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    for picture in (portrait, portrait[:231, :187]):
        for scale in (1.0, 0.3):
            points = portrait_face.points * scale
            matrix = torch.from_numpy(chip_to_picture(points))[None]
            wanted = cut_chips(as_tensor(picture[None]), matrix)[0].permute(1, 2, 0)
            np.testing.assert_allclose(cut_chip(picture, points), wanted, atol=1e-4)


def test_bundled_weights_run_without_torch(tmp_path: Path) -> None:
    """From the second run on."""
    portrait = Path(__file__).parents[2] / "samples" / "portrait.png"
    script = f"""
import sys
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.source import load_sources
from metaportrait_cli.render.protocol import Driven
engine = Engine()
source = load_sources(
    [{str(portrait)!r}], choice=LARGEST_FACE, detector=engine.detector
)
points = source.landmarks(256)[None].copy()
points[:, [17, 84, 314], 1] += 8
points[:, [14, 87, 317, 178, 402], 1] += 8
engine.rendering().renderer.open(source, size=256).render(Driven.of(points))
print("torch" in sys.modules)
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert told == ["True", "False"]


def test_convolutions_of_known_ranges_are_done_in_bytes_and_others_as_before() -> None:
    torch.manual_seed(0)
    known, other = (nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
    x = noise(32, 16, 16)

    def function(x: Tensor) -> list[Tensor]:
        return [known(x), other(x)]

    program = recorded(function, [x])
    key = key_of(known.weight.detach().numpy().tobytes())
    assert convolutions(program)[key].size == known.weight.numel()
    assert quantized(program, {}) == program
    in_bytes = Machine(quantized(program, {key: x.abs().max().item(), "another": 1.0}))
    exact, (rounded, same) = Machine(program)([x[0].numpy()]), in_bytes([x[0].numpy()])
    np.testing.assert_array_equal(same, exact[1])
    assert 0 < np.abs(rounded - exact[0]).mean() < 0.02 * np.abs(exact[0]).mean()
