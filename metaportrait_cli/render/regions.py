"""Mouth and eyes of rendered frames, repainted by the region networks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.face.identity import embed
from metaportrait_cli.face.regions import (
    REGIONS,
    Kind,
    OwnRegions,
    Region,
    add_patch,
    kind_of,
    patch_to_picture,
)
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.regions import RegionNetwork


class RegionRefiner:
    """Holds the networks, one for each kind of region, in the precision `dtype`."""

    def __init__(
        self,
        networks: Mapping[Kind, RegionNetwork],
        identity: IdentityNetwork,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = torch.device(device)
        self._dtype = dtype
        self._identity = identity
        self.networks = {
            kind: channels_last(network.eval().requires_grad_(False).to(self.device, dtype))
            for kind, network in networks.items()
        }

    def of_networks(self, networks: Mapping[Kind, RegionNetwork]) -> RegionRefiner:
        """A refiner with other networks, on the same device in the same precision."""
        return RegionRefiner(networks, self._identity, device=str(self.device), dtype=self._dtype)

    def open(self, crop: NDArray[np.uint8], points: NDArray[np.float32]) -> OpenedRegions:
        """Looks at a source crop (S, S, 3) with its face points (478, 3) in pixels."""
        known = embed(self._identity, crop[None], points[None]).to(self.device)
        return OpenedRegions(self, OwnRegions(crop, points), known)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Those that there is a network for."""
        return tuple(region for region in REGIONS if kind_of(region) in self.networks)

    @torch.inference_mode()
    def changes(
        self, patches: Mapping[Region, NDArray[np.uint8]], identity: Tensor
    ) -> dict[Region, NDArray[np.float32]]:
        """What to add to each region's patch, (P, P, 3) in grey levels."""
        found: dict[Region, NDArray[np.float32]] = {}
        for kind, network in self.networks.items():
            names = [region for region in patches if kind_of(region) == kind]
            stacked = np.stack([patches[name] for name in names]).transpose(0, 3, 1, 2)
            inputs = torch.from_numpy(np.ascontiguousarray(stacked)).to(self.device).float() / 255
            repainted = network(inputs, identity.expand(len(names), -1))
            change = 255 * (repainted.image - inputs[:, :3])
            for name, patch in zip(names, change.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
                found[name] = np.ascontiguousarray(patch)
        return found


class OpenedRegions:
    """One source's regions, ready to be repainted."""

    def __init__(self, refiner: RegionRefiner, own: OwnRegions, identity: Tensor) -> None:
        self._refiner = refiner
        self._own = own
        self._known = identity

    def repaint(
        self, frame: NDArray[np.uint8], driven: NDArray[np.float32], gap: NDArray[np.float32]
    ) -> None:
        """Repaints mouth and eyes of the warped frame (S, S, 3), in place.

        `driven` (478, 3) is where its face is; `gap` (N, 2) is the mouth opening that the source
        doesn't show, see `Correspondence`.
        """
        patches = {
            region: self._own.beside(frame, driven, gap, region) for region in self._refiner.regions
        }
        for region, change in self._refiner.changes(patches, self._known).items():
            add_patch(frame, change, patch_to_picture(driven, region))
