"""The authors' base checkpoint (``ckpt_base.pth.tar``) -> warping, refinement, discriminator."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metaportrait_cli.convert.keymap import KeyMap, apply_key_map
from metaportrait_cli.networks.discriminator import (
    DiscriminatorConfig,
    MultiScaleDiscriminator,
)
from metaportrait_cli.networks.refinement import RefinementConfig, RefinementNetwork
from metaportrait_cli.networks.warping import WarpingConfig, WarpingNetwork
from metaportrait_cli.weights.store import assign, build_empty, tensors_of

WARPING_PARTS = ("ladder_network.", "dense_motion_network.")
SHARED_HEAD_BLOCKS = ("head_0", "G_middle_0", "G_middle_1")


def convert_generator(
    state: Mapping[str, Tensor],
    *,
    warping: WarpingConfig,
    refinement: RefinementConfig,
    where: str,
) -> tuple[WarpingNetwork, RefinementNetwork]:
    """Both networks of the released ``generator`` state.

    The configs' ``spectral_norm`` must be that of the file (see :func:`has_spectral_norm`).
    """
    warping_state = {k: v for k, v in state.items() if k.startswith(WARPING_PARTS)}
    refinement_state = {k: v for k, v in state.items() if k not in warping_state}
    warp_network = build_empty(WarpingNetwork, vars(warping), where=where)
    refine_network = build_empty(RefinementNetwork, vars(refinement), where=where)
    warp_tensors = apply_key_map(
        warping_state, warping_keys(warping), tensors_of(warp_network), where=where
    )
    refine_tensors = apply_key_map(
        refinement_state, refinement_keys(refinement), tensors_of(refine_network), where=where
    )
    return (
        assign(warp_network, warp_tensors, where=where),
        assign(refine_network, refine_tensors, where=where),
    )


def convert_discriminator(
    state: Mapping[str, Tensor], *, config: DiscriminatorConfig, where: str
) -> MultiScaleDiscriminator:
    network = build_empty(MultiScaleDiscriminator, vars(config), where=where)
    tensors = apply_key_map(state, discriminator_keys(config), tensors_of(network), where=where)
    return assign(network, tensors, where=where)


def has_spectral_norm(state: Mapping[str, Tensor]) -> bool:
    """False for files written with ``--remove_sn``, whose 25 layers store a plain weight."""
    return any(key.endswith(".weight_u") for key in state)


def warping_keys(config: WarpingConfig) -> KeyMap:
    keys: KeyMap = {}
    for index in range(len(config.motion_widths)):
        ours, theirs = f"motion_encoder.convs.{index}", f"ladder_network.layer{index + 1}.0"
        keys |= _conv(ours, theirs, spectral=config.spectral_norm, bias=False)
    keys |= _pair("motion_encoder.project", "ladder_network.fc")
    hourglass = "dense_motion_network.hourglass"
    for ours, theirs, count in (
        ("down", "encoder.down_blocks", len(config.encoder_widths)),
        ("up", "decoder.up_blocks", len(config.decoder_widths)),
    ):
        for index in range(count):
            block = f"{hourglass}.{theirs}.{index}"
            keys |= _adaptive_block(f"hourglass.{ours}.{index}.change", block)
            keys |= _adaptive_block(f"hourglass.{ours}.{index}.keep", f"{block}.SameBlock2d")
    for ours, theirs in (("flow_head", "reger"), ("occlusion_head", "occlusion_net")):
        head = f"dense_motion_network.{theirs}"
        keys[f"{ours}.scale"] = (f"{head}.0.weight",)
        keys[f"{ours}.shift"] = (f"{head}.0.bias",)
        keys |= _pair(f"{ours}.conv", f"{head}.2")
    return keys


def refinement_keys(config: RefinementConfig) -> KeyMap:
    keys: KeyMap = {}
    for ours, theirs, count in (
        ("down", "encoder.down_blocks", len(config.encoder_widths)),
        ("up", "decoder.up_blocks", len(config.decoder_widths)),
    ):
        for index in range(count):
            for layer in ("conv", "norm"):
                keys |= _pair(
                    f"source_encoder.{ours}.{index}.{layer}",
                    f"feature_encoder.{theirs}.{index}.{layer}",
                )
    keys |= _pair("source_encoder.fuse", "fuse_high_res")
    keys |= _conv("seed", "SPDAE_G.conv1", spectral=config.spectral_norm)
    widths = (config.block_widths[0], *config.block_widths)
    for index, theirs in enumerate(_block_names(config)):
        keys |= _fusion_block(
            f"blocks.{index}",
            f"SPDAE_G.{theirs}",
            has_shortcut=widths[index] != widths[index + 1],
            spectral=config.spectral_norm,
        )
    return keys | _pair("to_rgb", "SPDAE_G.conv_img")


def discriminator_keys(config: DiscriminatorConfig) -> KeyMap:
    keys: KeyMap = {}
    ours, theirs = "scales.0", "discs.1"  # the release has the full-size scale only
    for index in range(len(config.widths)):
        keys |= _pair(f"{ours}.convs.{index}", f"{theirs}.down_blocks.{index}.conv")
        if index:
            keys |= _pair(f"{ours}.norms.{index - 1}", f"{theirs}.down_blocks.{index}.norm")
    return keys | _pair(f"{ours}.head", f"{theirs}.conv")


def _block_names(config: RefinementConfig) -> list[str]:
    levels = len(config.level_widths)
    shared = len(config.block_widths) - levels
    return [*SHARED_HEAD_BLOCKS[:shared], *(f"up_{level}" for level in range(levels))]


def _fusion_block(ours: str, theirs: str, *, has_shortcut: bool, spectral: bool) -> KeyMap:
    norms = [f"{theirs}.norm_{name}" for name in ("0", "1", "s")[: 3 if has_shortcut else 2]]
    keys: KeyMap = {}
    for leaf in ("weight", "bias"):
        keys[f"{ours}.condition.{leaf}"] = tuple(f"{norm}.mlp_shared.0.{leaf}" for norm in norms)
    for index, norm in enumerate(norms):
        target = f"{ours}.norms.{index}"
        keys |= _gamma_beta(f"{target}.modulation", norm)
        keys |= _pair(f"{target}.attention", f"{norm}.mlp_attention.0")
        # Equalised learning rate, not spectral norm: this weight_orig stays one in every variant.
        keys[f"{target}.identity.weight"] = (f"{norm}.adain.style.linear.weight_orig",)
        keys[f"{target}.identity.bias"] = (f"{norm}.adain.style.linear.bias",)
    for index in range(2):
        keys |= _conv(f"{ours}.convs.{index}", f"{theirs}.conv_{index}", spectral=spectral)
    if has_shortcut:
        keys |= _conv(f"{ours}.shortcut", f"{theirs}.conv_s", spectral=spectral, bias=False)
    return keys


def _adaptive_block(ours: str, theirs: str) -> KeyMap:
    return (
        _pair(f"{ours}.conv", f"{theirs}.conv")
        | _pair(f"{ours}.norm.shared", f"{theirs}.norm.mlp_shared.0")
        | _gamma_beta(f"{ours}.norm.modulation", f"{theirs}.norm")
    )


def _gamma_beta(ours: str, theirs: str) -> KeyMap:
    return {
        f"{ours}.{leaf}": (f"{theirs}.mlp_gamma.{leaf}", f"{theirs}.mlp_beta.{leaf}")
        for leaf in ("weight", "bias")
    }


def _conv(ours: str, theirs: str, *, spectral: bool, bias: bool = True) -> KeyMap:
    keys: KeyMap = {
        f"{ours}.weight": (f"{theirs}.weight_orig" if spectral else f"{theirs}.weight",)
    }
    if spectral:
        keys |= {f"{ours}.{leaf}": (f"{theirs}.weight_{leaf}",) for leaf in ("u", "v")}
    if bias:
        keys[f"{ours}.bias"] = (f"{theirs}.bias",)
    return keys


def _pair(ours: str, theirs: str) -> KeyMap:
    return {f"{ours}.{leaf}": (f"{theirs}.{leaf}",) for leaf in ("weight", "bias")}
