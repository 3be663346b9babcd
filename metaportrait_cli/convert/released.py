"""Converts whole released files: reads, recognises, maps, writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaportrait_cli.convert.base import (
    convert_discriminator,
    convert_generator,
    has_spectral_norm,
)
from metaportrait_cli.convert.checkpoint import plain_state, read_checkpoint
from metaportrait_cli.convert.temporal_sr import convert_temporal_sr
from metaportrait_cli.errors import UsageError, WeightsError
from metaportrait_cli.media.outputs import claimed
from metaportrait_cli.networks.discriminator import DiscriminatorConfig
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.refinement import RefinementConfig
from metaportrait_cli.networks.temporal_sr import TemporalSRConfig
from metaportrait_cli.networks.warping import WarpingConfig
from metaportrait_cli.weights.architectures import RELEASED
from metaportrait_cli.weights.store import save_networks


def convert_files(
    inputs: Sequence[Path],
    output: Path,
    *,
    overwrite: bool = False,
    on_notice: Callable[[str], None] | None = None,
) -> Path:
    """Convert released files into one safetensors file and return its path.

    Understands the base checkpoint (with or without spectral norm; its discriminator is kept
    where present, for training), the temporal super-resolution, and two-dimensional GFPGAN.
    ``on_notice`` hears, in words, what was recognised.
    """
    with claimed(output, overwrite=overwrite, is_input=inputs):
        save_networks(output, _converted(inputs, on_notice=on_notice), architecture=RELEASED)
    return output


def _converted(
    inputs: Sequence[Path], *, on_notice: Callable[[str], None] | None
) -> dict[str, Network]:
    parts: dict[str, Network] = {}
    for path in inputs:
        for part, network in networks_of(read_checkpoint(path), where=str(path)).items():
            if part in parts:
                raise UsageError(f"{path}: a second {part} network; convert one file of each kind")
            parts[part] = network
            if on_notice:
                count = sum(value.numel() for value in network.parameters())
                on_notice(f"{path.name}: {part}, {count:,} parameters")
    return parts


def networks_of(checkpoint: Mapping[str, Any], *, where: str) -> dict[str, Network]:
    """The networks in a released checkpoint's dictionary, at their released sizes."""
    if "generator" in checkpoint:
        return _base(checkpoint, where=where)
    state = plain_state(_super_resolution_entry(checkpoint), where=where)
    if "conv_body_first.weight" not in state:
        raise WeightsError(
            f"{where}: is none of the files that can be converted: the base checkpoint "
            "(with a 'generator'), temporal_gfpgan.pth, or a clean GFPGAN"
        )
    temporal = any(key.startswith("window_down.") for key in state)
    config = TemporalSRConfig(temporal=temporal)
    return {"temporal_sr": convert_temporal_sr(state, config=config, where=where)}


def _base(checkpoint: Mapping[str, Any], *, where: str) -> dict[str, Network]:
    state = plain_state(checkpoint["generator"], where=where)
    spectral = has_spectral_norm(state)
    warping, refinement = convert_generator(
        state,
        warping=WarpingConfig(spectral_norm=spectral),
        refinement=RefinementConfig(spectral_norm=spectral),
        where=where,
    )
    parts: dict[str, Network] = {"warping": warping, "refinement": refinement}
    if checkpoint.get("discriminator"):
        parts["discriminator"] = convert_discriminator(
            plain_state(checkpoint["discriminator"], where=where),
            config=DiscriminatorConfig.released(),
            where=where,
        )
    return parts


def _super_resolution_entry(checkpoint: Mapping[str, Any]) -> Any:
    """The weights the authors' own loaders take: ``params``, else the bare dictionary, else the
    averaged ``params_ema`` (GFPGAN's files hold only that)."""
    if "params" in checkpoint:
        return checkpoint["params"]
    return checkpoint.get("params_ema", checkpoint)
