"""What a training run keeps: checkpoints to go on from, averaged weights, the run card."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.networks.network import Network

NetworkT = TypeVar("NetworkT", bound=Network)

CHECKPOINT = "state.pt"
CARD = "card.json"
LOG = "log.jsonl"


class Average(Generic[NetworkT]):
    """Exponential moving average of a network's parameters; what is evaluated and shipped."""

    def __init__(self, network: NetworkT, *, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: NetworkT, step: int) -> None:
        """Takes the parameters after step number `step`; early on the average is short."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for ours, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            ours.lerp_(theirs, 1 - decay)


@dataclass(frozen=True)
class Trained:
    """Everything that has a state, by name: networks and optimisers."""

    parts: Mapping[str, nn.Module | torch.optim.Optimizer]

    def save(self, path: Path, *, step: int, best: float, config: Mapping[str, Any]) -> None:
        """Writes a checkpoint, replacing the last one when it is complete."""
        content = {
            "step": step,
            "best": best,
            "config": json.dumps(config, sort_keys=True),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        with atomic_output(path) as partial:
            torch.save(content, partial)

    def restore(self, path: Path, *, config: Mapping[str, Any]) -> tuple[int, float]:
        """Reads a checkpoint: its step and best score. Raises WeightsError if it is another's."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{path}: can't be resumed from: {error}") from None
        theirs, ours = json.loads(content["config"]), json.loads(json.dumps(config))
        changed = sorted(key for key in ours if ours[key] != theirs.get(key))
        if changed:
            raise WeightsError(
                f"{path}: was made with other settings ({', '.join(changed)});"
                " continue with the same, or train into another folder"
            )
        for name, part in self.parts.items():
            part.load_state_dict(content["parts"][name])
        torch.set_rng_state(content["rng"])
        if content["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["cuda_rng"])
        return int(content["step"]), float(content["best"])


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Writes what is to be known about a run, as JSON."""
    with atomic_output(path) as partial:
        partial.write_text(json.dumps(card, indent=2) + "\n")
