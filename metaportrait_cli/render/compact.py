"""The renderer of compact weights: the warp, helped by what networks a file holds.

These are any of `warping` (with `layers`, if they are there), `mouth`, `eyes` and `shading`; what
ships shades where mouth or eyes are repainted and the file has nothing of its own.
"""

from __future__ import annotations

from pathlib import Path

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.identity import identity_network
from metaportrait_cli.face.regions import KINDS, PATCHES, Kind
from metaportrait_cli.networks.compact_warping import CompactWarping
from metaportrait_cli.networks.layered_warping import LayeredWarping
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.render.flows import Corrections, Uncorrected
from metaportrait_cli.render.learned_flows import LearnedFlows
from metaportrait_cli.render.opening import Opening, Rendering
from metaportrait_cli.render.regions import RegionRefiner
from metaportrait_cli.render.shading.light import SHADING, Shading
from metaportrait_cli.render.teeth import bundled_teeth
from metaportrait_cli.render.warped import RefinedWarpRenderer, WarpRenderer
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network, read_header

WARPING, LAYERS = "warping", "layers"


def from_file(opening: Opening) -> Rendering:
    """Reads weights made by `train warping` or `train regions`. Raises `WeightsError`."""
    path, device, dtype = opening.path, opening.device, opening.dtype
    # Stored at half precision; a CPU is slow with it.
    corrected: Corrections = Uncorrected()
    parts = read_header(path).configs
    if WARPING in parts:
        warping = load_network(CompactWarping, path, part=WARPING).float()
        layered = (
            load_network(LayeredWarping, path, part=LAYERS).float() if LAYERS in parts else None
        )
        corrected = LearnedFlows(warping, layered, device=device, dtype=dtype)
    networks = region_networks(path)
    for name, delta in opening.deltas.items():
        kind, _, parameter = name.partition(".")
        known = dict(networks[kind].named_parameters()) if kind in networks else {}
        own = known.get(parameter)
        if own is None or own.shape != delta.shape:
            raise WeightsError(f"{path}: has no {name} of the shape that the portrait adapts")
        own.data += delta.float()
    shading = Shading.of_file(path) if SHADING in parts else None
    if not networks:
        return Rendering(WarpRenderer(corrected, shading=shading, on_notice=opening.on_notice))
    teeth = bundled_teeth(device=device) if "mouth" in networks else None
    refiner = RegionRefiner(networks, identity_network(), teeth=teeth, device=device, dtype=dtype)
    shading = shading or Shading.of_file(bundled_path("shading"))
    renderer = RefinedWarpRenderer(refiner, corrected, shading=shading, on_notice=opening.on_notice)
    return Rendering(renderer, adaptable=renderer)


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
