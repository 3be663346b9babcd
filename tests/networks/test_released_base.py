"""The base networks are the authors': recorded values, and an independent plain reading."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from metaportrait_cli.convert.base import (
    convert_generator,
    discriminator_keys,
    has_spectral_norm,
    refinement_keys,
    warping_keys,
)
from metaportrait_cli.convert.released import convert_files
from metaportrait_cli.networks.discriminator import DiscriminatorConfig, MultiScaleDiscriminator
from metaportrait_cli.networks.refinement import RefinementConfig, RefinementNetwork
from metaportrait_cli.networks.warping import WarpingConfig, WarpingNetwork, sampled_at
from metaportrait_cli.weights.store import load_network

# What counts as the same network: largest difference; the mean one must be below 1e-5.
ALLOWED = {
    "z_w": 2e-6,
    "flow": 3e-5,
    "deformation": 3e-5,
    "occlusion_map": 5e-5,
    "deformed": 1e-3,
    "prediction": 5e-4,
}


@pytest.fixture(scope="module")
def converted(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the released checkpoint, converted."""
    folder = tmp_path_factory.mktemp("released")
    checkpoint = folder / "ckpt_base.pth.tar"
    maker = golden / "base" / "make_checkpoint.py"
    subprocess.run([sys.executable, maker, checkpoint], check=True)
    output = convert_files([checkpoint], folder / "released.safetensors")
    checkpoint.unlink()
    return output


@torch.inference_mode()
def run(
    warping: WarpingNetwork, refinement: RefinementNetwork, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    pictures = {"source": inputs["source"], "source_line": inputs["source_line"]}
    source = refinement.encode(**pictures, identity=inputs["source_id"])
    motion = warping(**pictures, driving_line=inputs["driving_line"])
    prediction = refinement(
        source,
        motion,
        driving_line=inputs["driving_line"],
        mouth_mask=inputs["mouth_mask"],
        gaze=inputs["driving_ldmk"][:, 29:37],
    )
    return {
        "z_w": motion.motion_code,
        "flow": motion.flow,
        "deformation": motion.grid,
        "occlusion_map": motion.occlusion,
        "deformed": sampled_at(inputs["source"], motion.grid),
        "prediction": prediction,
    }


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, allowed in ALLOWED.items():
        difference = (found[name] - expected[name]).abs()
        assert found[name].shape == expected[name].shape
        assert difference.max() <= allowed, f"{name}: {difference.max()}"
        assert difference.mean() < 1e-5, f"{name}: {difference.mean()} on average"


@pytest.mark.golden
@pytest.mark.parametrize("folded", [True, False])
def test_base_networks_give_the_recorded_values(
    golden: Path, converted: Path, *, folded: bool
) -> None:
    warping = load_network(WarpingNetwork, converted, part="warping")
    refinement = load_network(RefinementNetwork, converted, part="refinement")
    assert warping.config == WarpingConfig.released()
    assert refinement.config == RefinementConfig.released()
    if folded:
        warping.fold()
        refinement.fold()
    recorded_in = load_file(golden / "base" / "inputs.safetensors")
    recorded_out = load_file(golden / "base" / "outputs.safetensors")
    frames = ("f0", "f2") if folded else ("f2",)  # f2's landmarks leave the picture
    for frame in frames:
        prefix = f"{frame}."
        inputs = {k.removeprefix(prefix): v for k, v in recorded_in.items() if k.startswith(prefix)}
        expected = {name: recorded_out[prefix + name] for name in ALLOWED}
        assert_same(run(warping, refinement, inputs), expected)


@pytest.mark.golden
def test_discriminator_gives_the_recorded_values(golden: Path, converted: Path) -> None:
    discriminator = load_network(MultiScaleDiscriminator, converted, part="discriminator")
    image = load_file(golden / "base" / "inputs.safetensors")["f0.driving"]
    recorded = load_file(golden / "base" / "discriminator_f0.safetensors")
    with torch.inference_mode():
        (judgement,) = discriminator(image)
    torch.testing.assert_close(judgement.logits, recorded["map"], atol=1e-4, rtol=0)
    torch.testing.assert_close(judgement.features[0], recorded["feature_0"], atol=1e-4, rtol=0)
    assert len(judgement.features) == 4


@pytest.mark.golden
def test_released_networks_have_exactly_the_recorded_keys(golden: Path) -> None:
    rows = [line.split("\t") for line in (golden / "base" / "keys.tsv").read_text().splitlines()]
    maps = {
        "generator": warping_keys(WarpingConfig.released())
        | refinement_keys(RefinementConfig.released()),
        "discriminator": discriminator_keys(DiscriminatorConfig.released()),
    }
    for part, key_map in maps.items():
        used = [source for sources in key_map.values() for source in sources]
        assert len(used) == len(set(used))
        assert set(used) == {row[1] for row in rows if row[0] == part}


@pytest.mark.parametrize("seed", [1, 2])
def test_networks_equal_the_plain_reading(
    seed: int,
    tiny_state: Callable[[int], dict[str, Tensor]],
    tiny_inputs: dict[str, Tensor],
    plain_reading: Callable[..., dict[str, Tensor]],
    tiny_base: tuple[WarpingConfig, RefinementConfig],
) -> None:
    """Kept and folded spectral norm, and a file without any, are the same network."""
    tiny_warping, tiny_refinement = tiny_base
    state = tiny_state(seed)
    with torch.inference_mode():
        expected = plain_reading(state, tiny_inputs)
    where = "tiny"
    networks = convert_generator(
        state, warping=tiny_warping, refinement=tiny_refinement, where=where
    )
    assert_same(run(*networks, tiny_inputs), expected)
    for network in networks:
        network.fold()
        assert not any(key.endswith((".u", ".v")) for key in network.state_dict())
        assert not network.config.spectral_norm
    assert_same(run(*networks, tiny_inputs), expected)

    removed = without_spectral_norm(state)
    assert has_spectral_norm(state)
    assert not has_spectral_norm(removed)
    networks = convert_generator(
        removed,
        warping=replace(tiny_warping, spectral_norm=False),
        refinement=replace(tiny_refinement, spectral_norm=False),
        where=where,
    )
    assert_same(run(*networks, tiny_inputs), expected)


def without_spectral_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As the authors' --remove_sn writes it; the equalised linear layers stay `weight_orig`."""
    removed = {k: v for k, v in state.items() if not k.endswith((".weight_u", ".weight_v"))}
    for key in [key for key in state if key.endswith(".weight_u")]:
        name = key.removesuffix("_u")
        raw = removed.pop(f"{name}_orig")
        matrix = (raw.transpose(0, 1) if "SPDAE_G.conv1" in key else raw).flatten(1)
        removed[name] = raw / (state[key] @ matrix @ state[f"{name}_v"])
    return removed


def test_bfloat16_keeps_the_flow_in_float32(
    tiny_state: Callable[[int], dict[str, Tensor]],
    tiny_inputs: dict[str, Tensor],
    tiny_base: tuple[WarpingConfig, RefinementConfig],
) -> None:
    tiny_warping, tiny_refinement = tiny_base
    warping, refinement = convert_generator(
        tiny_state(1), warping=tiny_warping, refinement=tiny_refinement, where="tiny"
    )
    exact = run(warping, refinement, tiny_inputs)
    warping.fold(torch.bfloat16)
    refinement.fold(torch.bfloat16)
    rough = run(warping, refinement, tiny_inputs)
    assert rough["deformation"].dtype == torch.float32
    assert rough["prediction"].dtype == torch.float32
    assert (rough["prediction"] - exact["prediction"]).abs().mean() < 0.05
