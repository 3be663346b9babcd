"""The authors' ``temporal_gfpgan.pth`` and GFPGAN's own two-dimensional files -> TemporalSR."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metaportrait_cli.convert.keymap import KeyMap, apply_key_map
from metaportrait_cli.networks.temporal_sr import TemporalSR, TemporalSRConfig
from metaportrait_cli.weights.store import assign, build_empty, tensors_of

MAPPING_LAYERS = 8


def convert_temporal_sr(
    state: Mapping[str, Tensor], *, config: TemporalSRConfig, where: str
) -> TemporalSR:
    """Either layout; ``config.temporal`` says which."""
    network = build_empty(TemporalSR, vars(config), where=where)
    shaped = {key: _plain_shape(key, value) for key, value in state.items()}
    tensors = apply_key_map(
        shaped,
        temporal_sr_keys(config),
        tensors_of(network),
        unused=unused_keys(config),
        where=where,
    )
    return assign(network, tensors, where=where)


def temporal_sr_keys(config: TemporalSRConfig) -> KeyMap:
    levels = len(config.sizes) - 1
    keys = _pair("stem", "conv_body_first") | _pair("middle", "final_conv")
    keys |= _pair("to_latents", "final_linear")
    for index in range(levels):
        for ours, theirs in (("down", "conv_body_down"), ("up", "conv_body_up")):
            keys |= _pair(f"{ours}.{index}.conv1", f"{theirs}.{index}.conv1")
            keys |= _pair(f"{ours}.{index}.conv2", f"{theirs}.{index}.conv2")
            keys[f"{ours}.{index}.skip.weight"] = (f"{theirs}.{index}.skip.weight",)
        for ours, theirs in (("down", "window_down"), ("up", "recurrent_forward")):
            for layer in ("conv1", "conv2") if config.temporal else ():
                keys |= _pair(f"temporal_{ours}.{index}.{layer}", f"{theirs}.{index}.{layer}")
        head, scale, shift = (
            f"{name}.{index}" for name in ("conditions", "condition_scale", "condition_shift")
        )
        for leaf in ("weight", "bias"):
            keys[f"{head}.shared.{leaf}"] = (f"{scale}.0.{leaf}", f"{shift}.0.{leaf}")
        keys |= _pair(f"{head}.scale", f"{scale}.2") | _pair(f"{head}.shift", f"{shift}.2")
    return keys | _decoder_keys(levels)


def unused_keys(config: TemporalSRConfig) -> list[str]:
    """Present in every file, without influence: auxiliary RGB heads and StyleGAN's mapping."""
    layers = [f"toRGB.{index}" for index in range(len(config.sizes) - 1)]
    layers += [f"stylegan_decoder.style_mlp.{2 * index + 1}" for index in range(MAPPING_LAYERS)]
    return [f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]


def _decoder_keys(levels: int) -> KeyMap:
    theirs = "stylegan_decoder"
    keys: KeyMap = {"decoder.start": (f"{theirs}.constant_input.weight",)}
    convs = [("first_conv", "style_conv1")]
    rgbs = [("first_rgb", "to_rgb1")]
    for index in range(levels):
        convs.append((f"up_convs.{index}", f"style_convs.{2 * index}"))
        convs.append((f"convs.{index}", f"style_convs.{2 * index + 1}"))
        rgbs.append((f"rgbs.{index}", f"to_rgbs.{index}"))
    for ours, name in convs + rgbs:
        keys[f"decoder.{ours}.bias"] = (f"{theirs}.{name}.bias",)
        modulated = f"{theirs}.{name}.modulated_conv"
        keys[f"decoder.{ours}.conv.weight"] = (f"{modulated}.weight",)
        keys |= _pair(f"decoder.{ours}.conv.modulation", f"{modulated}.modulation")
    for ours, name in convs:
        keys[f"decoder.{ours}.noise_strength"] = (f"{theirs}.{name}.weight",)
    for index in range(len(convs)):
        keys[f"decoder.noise_{index}"] = (f"{theirs}.noises.noise{index}",)
    return keys


def _plain_shape(key: str, value: Tensor) -> Tensor:
    """Drop the axes of length one that the authors keep for broadcasting."""
    if key.endswith(".modulated_conv.weight") and value.ndim == 5 and len(value) == 1:
        return value[0]  # (1, out, in, k, k)
    if key.startswith("stylegan_decoder.") and value.ndim == 4 and key.endswith(".bias"):
        return value.flatten()  # (1, C, 1, 1)
    return value


def _pair(ours: str, theirs: str) -> KeyMap:
    return {f"{ours}.{leaf}": (f"{theirs}.{leaf}",) for leaf in ("weight", "bias")}
