"""The folder of a training run: checkpoints to go on from, weights, a log, and the card.

`state.pt` is all that has a state; `last.safetensors` the averaged weights of then and
`best.safetensors` those that judged best; `log.jsonl` a line a report; `card.json` what is to be
known about the run.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.media.outputs import atomic_output, check_folder, claimed, make_folder

CHECKPOINT = "state.pt"
LAST, BEST = "last.safetensors", "best.safetensors"
CARD = "card.json"
LOG = "log.jsonl"

Stateful = Mapping[str, nn.Module | torch.optim.Optimizer]
"""What has a state, by name"""
Scores = dict[str, dict[str, float]]
"""Of held-out people: what was judged → metric → value"""


@dataclass
class Standing:
    """How far a run is."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    scores: Scores = field(default_factory=dict)
    """Of the last time that it was judged, in whatever piece of the run"""


class RunFolder:
    """The folder of one run with one config; a later piece of the run opens it again."""

    def __init__(self, path: Path, config: Any) -> None:
        """`config` is a dataclass. Raises `UsageError` if this can't be a run's folder, and
        `WeightsError` if it holds a run with another config. What is missing of it is made when it
        is claimed."""
        check_folder(path)
        self.path = path
        self._config = json.dumps(asdict(config), sort_keys=True)
        self._found = self._read()

    def claimed(self) -> AbstractContextManager[None]:
        """Keeps the folder for one run at a time; one that nothing came into is removed again.
        Raises `UsageError` if another one is at it."""
        make_folder(self.path.absolute().parent)
        return claimed(self.path / CHECKPOINT, overwrite=True)

    def restore(self, parts: Stateful) -> Standing:
        """Puts all parts into the state of the last checkpoint, if there is one."""
        if self._found is None:
            return Standing()
        found, self._found = self._found, None  # it is as large as all networks
        try:
            for name, part in parts.items():
                part.load_state_dict(found["parts"][name])
            torch.set_rng_state(found["rng"])
            if found["cuda_rng"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(found["cuda_rng"])
            return Standing(**found["standing"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._refused(f"is of another version: {error}") from None

    def save(self, parts: Stateful, standing: Standing) -> None:
        """Writes a checkpoint, replacing the last one when it is complete."""
        content = {
            "standing": asdict(standing),
            "config": self._config,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),
            "parts": {name: part.state_dict() for name, part in parts.items()},
        }
        with atomic_output(self.path / CHECKPOINT) as partial:
            torch.save(content, partial)

    def write_card(self, card: Mapping[str, Any]) -> None:
        with atomic_output(self.path / CARD) as partial:
            partial.write_text(json.dumps(card, indent=2) + "\n")

    def log(self, record: Mapping[str, Any]) -> None:
        with (self.path / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _read(self) -> dict[str, Any] | None:
        path = self.path / CHECKPOINT
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            theirs = json.loads(found["config"])
        except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError) as error:
            raise self._refused(f"can't be resumed from: {error}") from None
        except pickle.UnpicklingError:
            raise self._refused("is no checkpoint of a training") from None
        ours = json.loads(self._config)
        changed = sorted(
            key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
        )
        if changed:
            raise self._refused(f"was made with other settings ({', '.join(changed)})")
        return found

    def _refused(self, reason: str) -> WeightsError:
        return WeightsError(
            f"{self.path / CHECKPOINT}: {reason}; continue with the settings and version of then,"
            " or train into another folder"
        )
