"""Recorded values, tiny networks in the released layout, and the plain reading to compare with."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metaportrait_cli.convert.base import refinement_keys, warping_keys
from metaportrait_cli.convert.keymap import KeyMap
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.refinement import RefinementConfig, RefinementNetwork
from metaportrait_cli.networks.temporal_sr import TemporalSRConfig
from metaportrait_cli.networks.warping import WarpingConfig, WarpingNetwork

ROOT = Path(__file__).parents[2]
# All the released structure at little width.
TINY_WARPING = WarpingConfig(
    motion_widths=(4, 6, 8, 8, 8, 8),
    motion_dim=12,
    encoder_widths=(4, 6, 8, 10, 10),
    decoder_widths=(10, 8, 6),
    modulation_hidden=8,
)
TINY_REFINEMENT = RefinementConfig(
    identity_dim=16,
    encoder_widths=(4, 6, 8),
    decoder_widths=(6, 5, 4),
    block_widths=(8, 8, 8, 6, 5, 4, 3),
    condition_hidden=6,
)
# Of the recorded tiny super-resolution network.
TINY_SR = TemporalSRConfig(output_size=64, style_dim=64, narrow=0.125)


Generate = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]


@pytest.fixture(scope="session")
def plain_reading() -> Generate:
    """`generate(released state, inputs)` of the benchmark's independent implementation."""
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.plain_reading import generate  # noqa: PLC0415
    finally:
        sys.path.remove(str(ROOT))
    return generate


@pytest.fixture(scope="session")
def golden() -> Path:
    folder = os.environ.get("METAPORTRAIT_TEST_GOLDEN")
    if not folder or not Path(folder, "base", "outputs.safetensors").is_file():
        pytest.skip("METAPORTRAIT_TEST_GOLDEN names no folder of recorded network values")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_base() -> tuple[WarpingConfig, RefinementConfig]:
    return TINY_WARPING, TINY_REFINEMENT


@pytest.fixture(scope="session")
def tiny_sr() -> TemporalSRConfig:
    return TINY_SR


@pytest.fixture
def tiny_state() -> Callable[[int], dict[str, Tensor]]:
    """Seed -> random weights in the released layout, at TINY sizes."""

    def make(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        warping = WarpingNetwork(TINY_WARPING)
        refinement = RefinementNetwork(TINY_REFINEMENT)
        return released_state(warping, warping_keys(TINY_WARPING)) | released_state(
            refinement, refinement_keys(TINY_REFINEMENT)
        )

    return make


@pytest.fixture
def tiny_inputs() -> dict[str, Tensor]:
    """Inputs of the base networks; landmarks leave the picture."""
    generator = torch.Generator().manual_seed(5)

    def image(width: int) -> Tensor:
        return torch.rand(1, width, 256, 256, generator=generator)

    return {
        "source": image(3),
        "source_line": image(3),
        "driving_line": image(3),
        "mouth_mask": (image(1) > 0.5).float(),
        "driving_ldmk": torch.rand(1, 58, 2, generator=generator) * 2.4 - 1.2,
        "source_id": torch.randn(1, 16, generator=generator),
    }


def released_state(network: Network, key_map: KeyMap) -> dict[str, Tensor]:
    """Lively random weights for the network under the released names."""
    state: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        sources = key_map[key]
        state |= zip(sources, random_weight(key, value).chunk(len(sources)), strict=True)
    state = {key: value.clone() for key, value in state.items()}
    for key in [key for key in state if key.endswith("_u")]:
        # One power iteration from anywhere: near the largest singular value, not on it.
        raw = state[f"{key.removesuffix('_u')}_orig"]
        matrix = (raw.transpose(0, 1) if "SPDAE_G.conv1" in key else raw).flatten(1)
        v = torch.nn.functional.normalize(matrix.t() @ torch.randn(len(matrix)), dim=0)
        state[f"{key.removesuffix('u')}v"] = v
        state[key] = torch.nn.functional.normalize(matrix @ v, dim=0)
    return state


def random_weight(key: str, like: Tensor) -> Tensor:
    random = torch.randn_like(like)
    if key.endswith(("norm.weight", "head.scale")):
        return 1 + 0.3 * random
    if like.ndim < 2 or key.endswith("head.shift"):
        return 0.2 * random
    if key.endswith("identity.weight"):  # equalised
        return random
    return random / math.sqrt(like[0].numel())
