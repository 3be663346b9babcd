"""Adapting the region networks to one person: the inner loop of `personalize` and of `train meta`.

Mouths and eyes of the person's own pictures, warped from one to another, show the networks how
this person's teeth, lids and lashes look. A step costs what a few dozen small patches cost, so
that half a minute on a laptop is many steps.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from metaportrait_cli.face.regions import KINDS, Kind
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.training.data.patches import Patches
from metaportrait_cli.training.descent import Average
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.regions import RegionWeights, drawn, region_terms

BETAS = (0.9, 0.99)  # as in `train regions`


@dataclass(frozen=True)
class AdaptConfig:
    """How one person is learnt."""

    weights: RegionWeights = field(default_factory=RegionWeights)
    batch: dict[Kind, int] = field(default_factory=lambda: {"mouth": 4, "eyes": 8})
    """Patches of each kind a step; mouths are finer, and cost more each"""
    lr: float = 1e-3
    clip_norm: float = 1.0
    average: float = 0.98
    trained: tuple[str, ...] = ("up", "head", "light", "identity", "look")
    """Parts of the networks that learn; the encoder stays, and needs no gradients"""


class Adaptation:
    """Region networks on their way from a base to one person."""

    def __init__(
        self,
        base: Mapping[Kind, RegionNetwork],
        patches: Mapping[Kind, Patches],
        *,
        config: AdaptConfig,
        perceptual: PerceptualLoss | None,
        device: torch.device | str,
        seed: int,
        start: Mapping[Kind, RegionNetwork] | None = None,
    ) -> None:
        """Copies the networks; only kinds that have patches are adapted.

        `start` is where to start from if not at the base, from which it differs in the trained
        parts alone (see `training.meta`).
        """
        self.kinds = tuple(kind for kind in KINDS if kind in base and len(patches[kind].inputs))
        self.step = 0
        self._config = config
        self._patches = patches
        self._perceptual = perceptual
        self._device = torch.device(device)
        self._seed = seed
        self._base = {kind: base[kind] for kind in self.kinds}
        first = start or base
        self._learning = {kind: _learner(first[kind], config, device) for kind in self.kinds}
        self._averages = {
            kind: Average(network, decay=config.average) for kind, network in self._learning.items()
        }
        self._parameters = [
            parameter
            for network in self._learning.values()
            for parameter in network.parameters()
            if parameter.requires_grad
        ]
        self._optimizer = torch.optim.Adam(self._parameters, lr=config.lr, betas=BETAS)

    def advance(self) -> float:
        """One step; returns the loss."""
        total = torch.zeros((), device=self._device)
        for kind in self.kinds:
            draw = np.random.default_rng((self._seed, self.step, KINDS.index(kind)))
            inputs, target, known = drawn(
                self._patches[kind], draw, self._config.batch[kind], kind, self._device
            )
            found = self._learning[kind](inputs, known)
            terms = region_terms(
                found, inputs, target, perceptual=self._perceptual, weights=self._config.weights
            )
            total = total + torch.stack(list(terms.values())).sum()
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm)
        self._optimizer.step()
        self.step += 1
        for kind, network in self._learning.items():
            self._averages[kind].update(network, self.step)
        return float(total.detach())

    def adapted(self) -> dict[Kind, RegionNetwork]:
        """The networks of now: averages over the last steps."""
        return {kind: copy.deepcopy(average.network) for kind, average in self._averages.items()}

    @torch.no_grad()
    def deltas(self) -> dict[str, Tensor]:
        """What the averages have that the base hasn't, by `kind.parameter`."""
        found: dict[str, Tensor] = {}
        for kind, average in self._averages.items():
            start = dict(self._base[kind].named_parameters())
            for name, value in average.network.named_parameters():
                if name.partition(".")[0] in self._config.trained:
                    found[f"{kind}.{name}"] = (value - start[name].to(value)).cpu()
        return found


def _learner(base: RegionNetwork, config: AdaptConfig, device: torch.device | str) -> RegionNetwork:
    """A copy whose parts in `config.trained` learn."""
    network = channels_last(copy.deepcopy(base).float().to(device)).train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.partition(".")[0] in config.trained)
    return network
