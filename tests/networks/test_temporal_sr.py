"""Temporal super-resolution: recorded values, exact streaming, GFPGAN's weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metaportrait_cli.convert.checkpoint import plain_state, read_checkpoint
from metaportrait_cli.convert.temporal_sr import (
    convert_temporal_sr,
    temporal_sr_keys,
    unused_keys,
)
from metaportrait_cli.networks.temporal_sr import (
    WINDOW_RELEASED,
    TemporalSR,
    TemporalSRConfig,
)

ALLOWED = 2e-5


def frames(golden: Path, name: str) -> Tensor:
    return torch.from_numpy(np.load(golden / "sr" / f"tiny_{name}.npy"))


@pytest.mark.golden
@pytest.mark.parametrize("case", ["n1", "n5", "video37", "native_size", "stored_noise"])
@torch.inference_mode()
def test_gives_the_recorded_values(golden: Path, tiny_sr: TemporalSRConfig, case: str) -> None:
    checkpoint = read_checkpoint(golden / "sr" / "tiny_params.pth")
    state = plain_state(checkpoint["params"], where="tiny")
    config = replace(tiny_sr, noise="stored" if case == "stored_noise" else "zero")
    network = convert_temporal_sr(state, config=config, where="tiny").fold()
    given, expected = frames(golden, f"{case}.in"), frames(golden, f"{case}.out")
    streamed = torch.stack(list(network.stream(given, window=WINDOW_RELEASED)))
    assert (streamed - expected).abs().max() < ALLOWED
    at_once = torch.cat([network(part) for part in given.split(WINDOW_RELEASED)])
    assert (at_once - expected).abs().max() < ALLOWED


@pytest.mark.golden
def test_released_network_has_exactly_the_recorded_keys(golden: Path) -> None:
    rows = [line.split("\t") for line in (golden / "sr" / "keys.tsv").read_text().splitlines()]
    config = TemporalSRConfig.released()
    used = [source for sources in temporal_sr_keys(config).values() for source in sources]
    assert sorted([*used, *unused_keys(config)]) == sorted(row[1] for row in rows[1:])
    with torch.device("meta"):
        count = sum(value.numel() for value in TemporalSR(config).parameters())
    assert count == 154_690_396 - 3_765 - 2_101_248  # without toRGB and the mapping network


@torch.inference_mode()
def test_streaming_equals_one_window(tiny_sr: TemporalSRConfig) -> None:
    torch.manual_seed(0)
    network = TemporalSR(tiny_sr).fold()
    clip = torch.rand(21, 3, 32, 32)
    expected = network(clip)
    streamed = torch.stack(list(network.stream(clip)))
    torch.testing.assert_close(streamed, expected, atol=5e-6, rtol=0)
    windows = torch.stack(list(network.stream(clip, window=16)))
    assert windows.shape == expected.shape
    torch.testing.assert_close(windows[16:], network(clip[16:]), atol=5e-6, rtol=0)
    assert (windows[14:18] - expected[14:18]).abs().max() > 1e-5, "cuts must matter"
    assert list(network.stream([])) == []


@torch.inference_mode()
def test_streaming_reads_a_bounded_number_of_frames_ahead(tiny_sr: TemporalSRConfig) -> None:
    network = TemporalSR(tiny_sr).fold()
    read = 0

    def endless() -> Iterator[Tensor]:
        nonlocal read
        while True:
            read += 1
            yield torch.rand(3, 32, 32)

    levels = len(tiny_sr.sizes) - 1
    lead = 2 * levels  # one frame for each temporal block
    for done, _ in enumerate(network.stream(endless()), start=1):
        assert read == done + lead
        if done == 5:
            break


@torch.inference_mode()
def test_bfloat16_is_close(tiny_sr: TemporalSRConfig) -> None:
    torch.manual_seed(0)
    network = TemporalSR(tiny_sr).fold()
    clip = torch.rand(2, 3, 32, 32)
    exact = network(clip)
    rough = network.fold(torch.bfloat16)(clip)
    assert rough.dtype == torch.float32
    error = (rough - exact).square().mean()
    assert -10 * torch.log10(error) > 35
