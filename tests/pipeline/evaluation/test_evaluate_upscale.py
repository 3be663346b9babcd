"""Judging super-resolution: untrained it equals bicubic, trained weights are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig
from metaportrait_cli.pipeline.evaluation import upscaling as evaluate_upscale
from metaportrait_cli.pipeline.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from metaportrait_cli.weights.store import save_networks

METHODS = ("bicubic", "single", "alone", "referred")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tiny network that takes over the reference's detail and nothing else."""
    network = CompactSR(CompactSRConfig(fine_width=4, width=4, stages=1))
    # Channels are RGB and the share of the reference, in four phases each.
    share = torch.arange(16) >= 12
    network.head.bias = torch.nn.Parameter(share.float())
    path = tmp_path / "tiny.safetensors"
    save_networks(path, {"compact_sr": network}, architecture="compact_sr")
    return path


@pytest.fixture
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample's face is small."""
    monkeypatch.setattr(evaluate_upscale, "LEAST_SIDE", 64)


@pytest.mark.usefixtures("_any_size")
@pytest.mark.parametrize("mode", ["upscale", "upscale-rendered"])
def test_each_method_is_judged(driver_path: Path, weights: Path, tmp_path: Path, mode: str) -> None:
    sheet = tmp_path / "sheet.png"
    options = EvaluateOptions(mode=mode, weights=(str(weights),), frames=4)  # pyrefly: ignore
    done: Evaluation = evaluate([driver_path], options, sheet=sheet)
    assert done.size == 512
    values = done.clips[0].values
    assert done.clips[0].frames == 4
    for method in ("single", "alone"):
        assert values[method] == pytest.approx(values["bicubic"], rel=1e-3)
    assert values["referred"]["lpips_like"] != pytest.approx(values["bicubic"]["lpips_like"])
    assert values["truth"]["warping_error"] > 0
    # The renderer's pictures are farther from the truth than the truth's own halves.
    assert (values["bicubic"]["psnr"] > 36) == (mode == "upscale")
    assert sheet.is_file()


def test_small_faces_are_left_out(driver_path: Path, weights: Path) -> None:
    options = EvaluateOptions(mode="upscale", weights=(str(weights),), frames=4)
    with pytest.raises(MediaError, match="larger faces"):
        evaluate([driver_path], options)


def test_one_network_at_a_time() -> None:
    with pytest.raises(UsageError, match="`weights` once"):
        EvaluateOptions(mode="upscale", weights=("a", "b"))
    with pytest.raises(UsageError, match="upscale-rendered"):
        EvaluateOptions(mode="bigger")  # pyrefly: ignore
