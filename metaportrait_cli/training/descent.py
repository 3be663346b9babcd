"""Steps down a gradient: schedule, mixed precision, clipping, moving averages."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.network import Network
from metaportrait_cli.training.place import Place

NetworkT = TypeVar("NetworkT", bound=Network)
Terms = dict[str, Tensor]
"""Weighted scalars by name; what is descended is their sum."""

FINAL_SHARE = 0.05
"""Of the learning rate, at the end."""


@dataclass(frozen=True)
class DescentConfig:
    """How networks learn; trainings add what and from what."""

    steps: int = 5000
    batch: int = 16
    """Samples a step and process."""
    lr: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.99)
    warm_up: int = 100
    """Steps"""
    plateau: float = 0.0
    """Share of the steps at full learning rate, before it falls."""
    clip_norm: float = 1.0
    average: float = 0.998
    """What of the moving average stays in a step."""
    held_out: float = 0.05
    """Share of the people that is kept for judging."""
    seed: int = 0


class Descent(Generic[NetworkT]):
    """Adam on networks, together; with `decay` AdamW."""

    def __init__(
        self,
        networks: Mapping[str, NetworkT],
        config: DescentConfig,
        place: Place,
        *,
        decay: float = 0.0,
    ) -> None:
        self.networks = {
            name: channels_last(network.to(place.device)) for name, network in networks.items()
        }
        self._averages = {
            name: Average(network, decay=config.average) for name, network in self.networks.items()
        }
        self._config = config
        self._place = place
        self._parameters = [
            parameter
            for network in self.networks.values()
            for parameter in network.parameters()
            if parameter.requires_grad
        ]
        self._optimizer = torch.optim.Adam(
            self._parameters,
            lr=config.lr,
            betas=config.betas,
            weight_decay=decay,
            decoupled_weight_decay=decay > 0,
        )

    @property
    def averaged(self) -> dict[str, NetworkT]:
        """Moving averages of the networks: what is judged and shipped."""
        return {name: average.network for name, average in self._averages.items()}

    @property
    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """All that a run goes on from."""
        averages = {f"average_{name}": network for name, network in self.averaged.items()}
        return {**self.networks, **averages, "optimizer": self._optimizer}

    def step(self, number: int, terms_of: Callable[[], Terms]) -> Terms:
        """One step, after `number` earlier ones; returns the terms, their `total`, and the norm of
        the `gradient` before it was clipped."""
        config = self._config
        share = rate_share(
            number, steps=config.steps, warm_up=config.warm_up, plateau=config.plateau
        )
        for group in self._optimizer.param_groups:
            group["lr"] = config.lr * share
        with self._place.autocast():
            terms = terms_of()
        total = torch.stack(list(terms.values())).sum()
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._place.average_gradients(self._parameters)
        norm = nn.utils.clip_grad_norm_(self._parameters, config.clip_norm)
        self._optimizer.step()
        for name, network in self.networks.items():
            self._averages[name].update(network, number + 1)
        return {**terms, "total": total, "gradient": norm}


class Average(Generic[NetworkT]):
    """Exponential moving average of a network's parameters."""

    def __init__(self, network: NetworkT, *, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: NetworkT, step: int) -> None:
        """Takes the parameters after step number `step`; early on the average is short."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for ours, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            ours.lerp_(theirs, 1 - decay)
        # Those of spectral norms: they follow the weights.
        for ours, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)


def rate_share(step: int, *, steps: int, warm_up: int, plateau: float = 0.0) -> float:
    """Share of the learning rate at a step: linear warm-up, `plateau` (a share of the steps) at
    full rate, and half a cosine down to `FINAL_SHARE` over the rest."""
    warm = min(1.0, (step + 1) / max(warm_up, 1))
    phase = max(step / steps - plateau, 0.0) / (1 - plateau)
    cosine = (1 + math.cos(math.pi * min(phase, 1.0))) / 2
    return warm * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)
