"""The renderer of compact weights: the warp, helped by what networks a file holds.

These are any of `warping`, `layers`, `mouth`, `eyes` and `shading`. Where a file warps and has no
`layers`, or repaints mouth or eyes and has no `shading`, it is what ships that does so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.identity import Identity
from metaportrait_cli.face.regions import KINDS, PATCHES, Kind
from metaportrait_cli.networks.swift.function import Running
from metaportrait_cli.render.flows import Corrections, Uncorrected
from metaportrait_cli.render.learned_flows import LearnedFlows
from metaportrait_cli.render.mouths.teeth import bundled_teeth
from metaportrait_cli.render.opening import Opening, Rendering
from metaportrait_cli.render.regions import RegionMaker, RegionRefiner
from metaportrait_cli.render.shading.light import SHADING, Shading
from metaportrait_cli.render.warped import RefinedWarpRenderer, WarpRenderer
from metaportrait_cli.stages import Once
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.ranges import known_ranges
from metaportrait_cli.weights.shelf import WeightsShelf
from metaportrait_cli.weights.tensors import read_header

if TYPE_CHECKING:
    import torch

    from metaportrait_cli.networks.compact_warping import CompactWarping
    from metaportrait_cli.networks.layered_warping import LayeredWarping
    from metaportrait_cli.networks.regions import RegionNetwork

WARPING, LAYERS = "warping", "layers"


def from_file(opening: Opening) -> Rendering:
    """Reads weights made by `train warping` or `train regions`. Raises `WeightsError`."""
    path = opening.path
    configs = read_header(path).configs
    # What a portrait adds makes other networks, which only it has.
    shelf = None if opening.deltas else WeightsShelf(path)
    running = Running(opening.device, opening.precision, shelf)
    flows: LearnedFlows | None = None
    if WARPING in configs:
        of_layers = path if LAYERS in configs else bundled_path(LAYERS)
        warping, layered = Once(partial(_warping, path)), Once(partial(_layered_warping, of_layers))
        flows = LearnedFlows(
            warping,
            layered,
            picture=_picture(configs[WARPING]),
            running=running,
            running_layered=Running(opening.device, opening.precision, WeightsShelf(of_layers)),
        )
        if not flows.is_known:  # what is wrong with them is told now
            warping()
            layered()
    corrected: Corrections = flows or Uncorrected()
    shading = Shading.of_file(path) if SHADING in configs else None
    kinds = [kind for kind in KINDS if kind in configs]
    networks = Once(partial(_adapted_networks, path, opening.deltas))
    if not kinds:
        if opening.deltas:
            networks()
        return Rendering(WarpRenderer(corrected, shading=shading, on_notice=opening.on_notice))
    makers = {
        kind: RegionMaker(partial(_one_of, networks, kind), configs[kind].get("keep_shown", False))
        for kind in kinds
    }
    if not opening.exact and not opening.deltas:
        running = replace(running, ranges=known_ranges())
    refiner = RegionRefiner(makers, Identity(), teeth=bundled_teeth(), running=running)
    if not refiner.is_known:
        networks()
    shading = shading or Shading.of_file(bundled_path("shading"))
    renderer = RefinedWarpRenderer(refiner, corrected, shading=shading, on_notice=opening.on_notice)
    return Rendering(renderer, adaptable=renderer)


def _picture(config: Mapping[str, int]) -> int:
    """The side of the pictures that a warping network sees."""
    return config.get("size") or config.get("warp_size") or 128


def _warping(path: Path) -> CompactWarping:
    from metaportrait_cli.networks.compact_warping import CompactWarping  # noqa: PLC0415  torch
    from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

    # Stored at half precision; a CPU is slow with it.
    return load_network(CompactWarping, path, part=WARPING).float()


def _layered_warping(path: Path) -> LayeredWarping:
    from metaportrait_cli.networks.layered_warping import LayeredWarping  # noqa: PLC0415  torch
    from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

    return load_network(LayeredWarping, path, part=LAYERS).float()


def _adapted_networks(path: Path, deltas: Mapping[str, torch.Tensor]) -> dict[Kind, RegionNetwork]:
    """Those of the file with what a portrait adds to them."""
    networks = region_networks(path)
    for name, delta in deltas.items():
        kind, _, parameter = name.partition(".")
        known = dict(networks[kind].named_parameters()) if kind in networks else {}
        own = known.get(parameter)
        if own is None or own.shape != delta.shape:
            raise WeightsError(f"{path}: has no {name} of the shape that the portrait adapts")
        own.data += delta.float()
    return networks


def _one_of(networks: Once[dict[Kind, RegionNetwork]], kind: Kind) -> RegionNetwork:
    return networks()[kind]


def region_networks(path: Path) -> dict[Kind, RegionNetwork]:
    """Those that a file of weights holds, at full precision. Raises `WeightsError`."""
    from metaportrait_cli.networks.mouth import REGION_NETWORKS  # noqa: PLC0415  torch
    from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

    parts = read_header(path).configs
    networks = {
        kind: load_network(REGION_NETWORKS[kind], path, part=kind).float()
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
