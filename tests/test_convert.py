"""Released checkpoints: understood in all their layouts, and never trusted."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from metaportrait_cli.cli.weights import app
from metaportrait_cli.convert import released
from metaportrait_cli.convert.base import discriminator_keys
from metaportrait_cli.convert.checkpoint import plain_state, read_checkpoint
from metaportrait_cli.convert.temporal_sr import temporal_sr_keys, unused_keys
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.networks.discriminator import DiscriminatorConfig, MultiScaleDiscriminator
from metaportrait_cli.networks.temporal_sr import TemporalSR, TemporalSRConfig
from metaportrait_cli.weights.architectures import RELEASED
from metaportrait_cli.weights.store import load_network, read_header

SMALL = TemporalSRConfig(output_size=8, style_dim=4, narrow=4 / 512)
runner = CliRunner()


class Evil:
    """Unpickling it would create a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, *, legacy: bool) -> None:
    trace = tmp_path / "executed"
    path = tmp_path / "evil.pth.tar"
    content = {"generator": {"a": torch.zeros(1)}, "epoch": Evil(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    result = runner.invoke(app, ["convert", str(path), "-o", str(tmp_path / "out.safetensors")])
    assert not trace.exists()
    assert result.exit_code == 5
    assert result.stderr.startswith(f"error: {path}: refused")
    assert "mkdir" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the file is not malicious after all"


def test_plain_malicious_pickle_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(WeightsError):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def test_numpy_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "numbers.pth"
    torch.save({"epoch": np.int64(3), "loss": np.float32(0.5), "best": np.float64(1.5)}, path)
    assert read_checkpoint(path) == {"epoch": 3, "loss": 0.5, "best": 1.5}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rubbish", b"\x80\x02rubbish", b"hello"])
def test_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_truncated_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({"params": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="damaged"):
        read_checkpoint(path)


def test_prefix_of_parallel_training_is_only_stripped_from_the_front() -> None:
    tensor = torch.zeros(1)
    assert list(plain_state({"module.a.module.b": tensor}, where="x")) == ["a.module.b"]
    assert list(plain_state({"a.module.b": tensor}, where="x")) == ["a.module.b"]
    with pytest.raises(WeightsError, match="b is not a tensor"):
        plain_state({"a": tensor, "b": 3}, where="x")


def small_state(*, temporal: bool = True) -> dict[str, Tensor]:
    """The released layout of super-resolution at its smallest."""
    config = replace(SMALL, temporal=temporal)
    torch.manual_seed(0)
    state = {key: torch.zeros(3) for key in unused_keys(config)}
    for key, value in TemporalSR(config).state_dict().items():
        sources = temporal_sr_keys(config)[key]
        state |= zip(sources, value.chunk(len(sources)), strict=True)
    return {key: value.clone() for key, value in state.items()}


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversion expects the released sizes; here, the smallest."""

    def small(*, temporal: bool) -> TemporalSRConfig:
        return replace(SMALL, temporal=temporal)

    monkeypatch.setattr(released, "TemporalSRConfig", small)


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state, _: {"params": state, "params_ema": {}},
        lambda state, _: {"params_ema": state},
        lambda state, _: state,
        lambda state, _: {"params": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_layouts_of_super_resolution(tmp_path: Path, wrap: Callable[..., Any]) -> None:
    state = small_state()
    path = tmp_path / "temporal_gfpgan.pth"
    torch.save(wrap(state, None), path)
    output = released.convert_files([path], tmp_path / "sr.safetensors")
    network = load_network(TemporalSR, output, part="temporal_sr")
    assert network.config == SMALL
    assert torch.equal(network.stem.weight, state["conv_body_first.weight"])
    shared = torch.cat([state["condition_scale.0.0.weight"], state["condition_shift.0.0.weight"]])
    assert torch.equal(network.state_dict()["conditions.0.shared.weight"], shared)


@pytest.mark.usefixtures("small_sizes")
def test_two_dimensional_file_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "GFPGANv1.4.pth"
    torch.save({"params_ema": small_state(temporal=False)}, path)
    output = released.convert_files([path], tmp_path / "flat.safetensors")
    assert not load_network(TemporalSR, output, part="temporal_sr").config.temporal


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("window_down.0.conv1.bias"), "1 missing: window_down.0.conv1.bias"),
        (lambda s: s.pop("toRGB.0.bias"), "1 missing: toRGB.0.bias"),
        (lambda s: s.update(more=torch.zeros(2)), "1 unexpected: more"),
        (
            lambda s: s.update({"condition_scale.0.0.bias": torch.zeros(9)}),
            "condition_scale.0.0.bias is 9, not 2",
        ),
    ],
)
def test_wrong_files_are_named_in_their_own_keys(
    tmp_path: Path, change: Callable[..., Any], message: str
) -> None:
    state = small_state()
    change(state)
    path = tmp_path / "wrong.pth"
    torch.save({"params": state}, path)
    output = tmp_path / "out.safetensors"
    result = runner.invoke(app, ["convert", str(path), "-o", str(output)])
    assert result.exit_code == 5
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not output.exists()


def test_checkpoint_without_generator_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save({"discriminator": {"a": torch.zeros(1)}, "epoch": 1}, path)
    with pytest.raises(WeightsError):
        released.convert_files([path], tmp_path / "out.safetensors")
    torch.save({"generator": {}}, path)
    with pytest.raises(WeightsError, match="no named weights"):
        released.convert_files([path], tmp_path / "out.safetensors")


def test_discriminator_key_map_is_complete() -> None:
    network = MultiScaleDiscriminator(DiscriminatorConfig(widths=(2, 3)))
    assert discriminator_keys(network.config).keys() == network.state_dict().keys()


@pytest.mark.usefixtures("small_sizes")
def test_existing_output_is_kept_unless_allowed(tmp_path: Path) -> None:
    path, output = tmp_path / "in.pth", tmp_path / "out.safetensors"
    torch.save({"params": small_state()}, path)
    output.write_text("precious")
    command = ["convert", str(path), "-o", str(output)]
    assert runner.invoke(app, command).exit_code == 2
    assert output.read_text() == "precious"
    result = runner.invoke(app, [*command, "--overwrite"])
    assert (result.exit_code, result.stdout) == (0, f"{output}\n")
    assert "temporal_sr" in result.stderr
    assert read_header(output).architecture == RELEASED
