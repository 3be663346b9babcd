"""The renderer of compact weights: which of the networks a file holds decides what they do.

A file of architecture `compact` holds either the whole model, part `compact`, or any of `warping`,
`mouth` and `eyes`, which help the analytic renderer.
"""

from __future__ import annotations

from pathlib import Path

import torch

from metaportrait_cli.face.regions import KINDS
from metaportrait_cli.networks.compact import WarpingNetwork
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.pipeline.learned import PART as WHOLE
from metaportrait_cli.pipeline.learned import LearnedRenderer
from metaportrait_cli.pipeline.learned_warp import LearnedWarps
from metaportrait_cli.pipeline.region_refiner import RegionRefiner
from metaportrait_cli.pipeline.render import AnalyticRenderer, Renderer
from metaportrait_cli.pipeline.warps import WarpMaker, analytic_warp
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network, read_header

ARCHITECTURE = "compact"
WARPING = "warping"


def open_compact(path: Path, *, device: str, dtype: torch.dtype) -> Renderer:
    """Reads weights made by `train base` or `train regions`. Raises `WeightsError`."""
    parts = read_header(path).configs
    if WHOLE in parts:
        return LearnedRenderer.load(path, device=device, dtype=dtype)
    warp_of: WarpMaker = analytic_warp
    if WARPING in parts:
        warping = load_network(WarpingNetwork, path, part=WARPING)
        warp_of = LearnedWarps(warping, device=device, dtype=dtype)
    networks = {
        kind: load_network(RegionNetwork, path, part=kind) for kind in KINDS if kind in parts
    }
    refiner = None
    if networks:
        # Stored at half precision; a CPU is slow with it.
        identity = load_network(IdentityNetwork, bundled_path("identity"), part="identity").float()
        refiner = RegionRefiner(networks, identity, device=device, dtype=dtype)
    return AnalyticRenderer(warp_of, refiner)
