"""The renderer of compact weights: which of the networks a file holds decides what they do.

A file of architecture `compact` holds either the whole model, part `compact`, or any of `warping`,
`mouth` and `eyes`, which help the analytic renderer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.regions import KINDS, PATCHES, Kind
from metaportrait_cli.networks.compact_warping import CompactWarping
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.render.flows import WarpMaker, analytic_warp
from metaportrait_cli.render.learned import PART as WHOLE
from metaportrait_cli.render.learned import LearnedRenderer
from metaportrait_cli.render.learned_flows import LearnedWarps
from metaportrait_cli.render.protocol import Renderer
from metaportrait_cli.render.regions import RegionRefiner
from metaportrait_cli.render.warped import WarpRenderer
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network, read_header

ARCHITECTURE = "compact"
WARPING = "warping"


def open_compact(
    path: Path,
    *,
    deltas: Mapping[str, Tensor] | None = None,
    device: str,
    dtype: torch.dtype,
) -> Renderer:
    """Reads weights made by `train warping` or `train regions`. Raises `WeightsError`.

    `deltas` are added to parameters of the region networks, by their names in the file.
    """
    parts = read_header(path).configs
    if WHOLE in parts:
        return LearnedRenderer.load(path, device=device, dtype=dtype)
    # Stored at half precision; a CPU is slow with it.
    warp_of: WarpMaker = analytic_warp
    if WARPING in parts:
        warping = load_network(CompactWarping, path, part=WARPING).float()
        warp_of = LearnedWarps(warping, device=device, dtype=dtype)
    networks = region_networks(path)
    for name, delta in (deltas or {}).items():
        kind, _, parameter = name.partition(".")
        known = dict(networks[kind].named_parameters()) if kind in networks else {}
        own = known.get(parameter)
        if own is None or own.shape != delta.shape:
            raise WeightsError(f"{path}: has no {name} of the shape that the portrait adapts")
        own.data += delta.float()
    refiner = None
    if networks:
        identity = load_network(IdentityNetwork, bundled_path("identity"), part="identity").float()
        refiner = RegionRefiner(networks, identity, device=device, dtype=dtype)
    return WarpRenderer(warp_of, refiner)


def region_networks(path: Path) -> dict[Kind, RegionNetwork]:
    """Those that a file of weights holds, at full precision. Raises `WeightsError`."""
    parts = read_header(path).configs
    networks = {
        kind: load_network(RegionNetwork, path, part=kind).float()
        for kind in KINDS
        if kind in parts
    }
    for kind, network in networks.items():
        if network.config.patch != PATCHES[kind]:
            raise WeightsError(
                f"{path}: its {kind} network paints {network.config.patch} pixels where this"
                f" version paints {PATCHES[kind]}; use the bundled weights, or train it again"
            )
    return networks
