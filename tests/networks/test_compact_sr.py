"""Compact temporal super-resolution: untrained it is bicubic, streamed it is exact."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metaportrait_cli.networks import compact_sr
from metaportrait_cli.networks.compact_sr import (
    CompactSR,
    CompactSRConfig,
    CompactTemporalBlock,
    Reference,
    enlarged,
)

TINY = CompactSRConfig(fine_width=4, width=6, stages=2)
ALLOWED = 1e-5
HEIGHT, WIDTH = 6, 10


def trained(config: CompactSRConfig = TINY, *, seed: int = 0) -> CompactSR:
    """With weights that do something: the zero head would hide every mistake."""
    torch.manual_seed(seed)
    network = CompactSR(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(0.3 * torch.randn_like(parameter))
    return network


def clip(count: int) -> tuple[Tensor, Reference]:
    generator = torch.Generator().manual_seed(count)
    frames = torch.rand(count, 3, HEIGHT, WIDTH, generator=generator)
    sharp = torch.rand(count, 4, 2 * HEIGHT, 2 * WIDTH, generator=generator)
    return frames, Reference(sharp[:, :3], sharp[:, 3:])


@pytest.mark.parametrize("with_reference", [False, True])
def test_untrained_is_bicubic(with_reference: bool) -> None:
    frames, reference = clip(3)
    result = CompactSR(TINY)(frames, reference if with_reference else None)
    assert torch.equal(result, enlarged(frames))
    assert result.shape == (3, 3, 2 * HEIGHT, 2 * WIDTH)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.booleans())
def test_any_parts_give_the_whole(sizes: list[int], with_reference: bool) -> None:
    network = trained()
    frames, reference = clip(sum(sizes))
    parts = frames.split(sizes)
    images, valids = reference.image.split(sizes), reference.valid.split(sizes)
    references = [Reference(*both) for both in zip(images, valids, strict=True)]
    streamed = list(network.stream(iter(parts), iter(references) if with_reference else None))
    whole = network(frames, reference if with_reference else None)
    assert (torch.cat(streamed) - whole).abs().max() < ALLOWED * whole.abs().max()


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_strips_of_large_frames_give_the_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_sr, "STRIP_PIXELS", 2 * WIDTH * rows)
    network = trained()
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(3, 3, 24, WIDTH, generator=generator)
    sharp = torch.rand(3, 4, 48, 2 * WIDTH, generator=generator)
    reference = Reference(sharp[:, :3], sharp[:, 3:])
    streamed = torch.cat(list(network.stream(iter([frames]), iter([reference]))))
    whole = network(frames, reference)
    assert (streamed - whole).abs().max() < ALLOWED * whole.abs().max()


def test_an_empty_clip_gives_nothing() -> None:
    assert list(trained().stream(iter(()))) == []


def test_streaming_lags_by_its_stages_only() -> None:
    network = trained()
    taken = 0

    def one_by_one() -> Iterator[Tensor]:
        nonlocal taken
        for frame in clip(12)[0].split(1):
            taken += 1
            yield frame

    for given_back, _ in enumerate(network.stream(one_by_one()), start=1):
        assert taken <= given_back + TINY.stages


def test_time_is_reflected_at_the_ends() -> None:
    block = CompactTemporalBlock(4)
    frames = torch.rand(4, 4, 6, 6)
    longer = torch.cat([frames[1:2], frames, frames[2:3]])
    assert torch.allclose(block(frames), block(longer)[1:-1], atol=1e-6)
    # A single frame has nothing to be reflected.
    assert torch.allclose(block(frames[:1]), block(frames[:1].repeat(3, 1, 1, 1))[1:2], atol=1e-6)


def test_a_frame_is_seen_by_its_neighbours_alone() -> None:
    network = trained()
    frames, _ = clip(12)
    changed = frames.clone()
    changed[5] = 0
    difference = (network(frames) - network(changed)).abs().amax(dim=(1, 2, 3))
    reach = TINY.stages
    near = torch.arange(12).sub(5).abs() <= reach
    assert (difference[near] > 0).all()
    assert (difference[~near] == 0).all()


def test_where_the_reference_is_not_valid_it_is_not_seen() -> None:
    network = trained()
    frames, reference = clip(3)
    hidden = Reference(reference.image, torch.zeros_like(reference.valid))
    assert torch.allclose(network(frames, hidden), network(frames), atol=1e-6)
    assert not torch.allclose(network(frames, reference), network(frames), atol=1e-2)


def test_half_precision_weights_give_float32_pictures() -> None:
    network, frames = trained(), clip(5)[0]
    exact = network(frames)
    rough = network.to(torch.bfloat16)(frames)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_a_config_must_have_layers() -> None:
    with pytest.raises(ValueError, match="start at 1"):
        CompactSRConfig(stages=0)
