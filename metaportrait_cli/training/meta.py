"""`train meta`: a start from which the region networks learn a person in few steps (Section 3.3).

Reptile over people (Algorithm 1): adapt to one as `personalize` does, then move the start towards
where that led. (Equation 9 is printed with the opposite sign, which would move it away.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.regions import Kind
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.training.adapt import Adaptation, AdaptConfig
from metaportrait_cli.training.data.patches import Patches
from metaportrait_cli.training.descent import Terms
from metaportrait_cli.training.loop import Record, Task, train, unheard
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Stateful
from metaportrait_cli.weights.join import NOTES as JOINED
from metaportrait_cli.weights.store import read_header

LEAST_PATCHES = 8
"""Of a kind, for a person to learn from."""
NOTE = "meta"
"""In the file's metadata: which weights it is a start for."""


@dataclass(frozen=True)
class MetaTraining:
    """What is learnt and how; a run can only be continued with the same."""

    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    steps: int = 300
    """Outer steps"""
    people: int = 2
    """Adapted to in an outer step"""
    inner: int = 20
    """Steps of each adaptation"""
    rate: float = 0.5
    """Share of the way to the adapted weights; falls to 0 over the run"""
    seed: int = 0


def train_meta(
    config: MetaTraining,
    base: Path,
    networks: Mapping[Kind, RegionNetwork],
    patches: Mapping[Kind, Patches],
    output: Path,
    *,
    options: RunOptions,
    perceptual: PerceptualLoss | None,
    on_record: Callable[[Record], None] = unheard,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `networks` are those of the file `base`, and change. Raises `UsageError` if nobody has enough
    patches.
    """
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = MetaTask(config, base, networks, patches, place=place, perceptual=perceptual)
        return train(task, folder, options=options, place=place, on_record=on_record)


MetaBatch = list[tuple[int, int]]
"""People by their row, and what seeds their adaptation"""


class MetaTask(Task[MetaBatch]):
    """People to adapt to, a few an outer step."""

    architecture = "compact"

    def __init__(
        self,
        config: MetaTraining,
        base: Path,
        networks: Mapping[Kind, RegionNetwork],
        patches: Mapping[Kind, Patches],
        *,
        place: Place,
        perceptual: PerceptualLoss | None,
    ) -> None:
        self.config = config
        self._people = people_with_patches(patches)
        if not self._people:
            raise UsageError(f"nobody has {LEAST_PATCHES} mouths and eyes to learn from")
        self._base = base.name
        with base.open("rb") as file:
            self._digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._networks = {kind: network.to(place.device) for kind, network in networks.items()}
        self._patches = patches
        self._place = place
        self._perceptual = perceptual.to(place.device) if perceptual is not None else None

    @property
    def state(self) -> Stateful:
        return {**self._networks}

    @property
    def weights(self) -> Mapping[str, RegionNetwork]:
        return {**self._networks}

    def batches(self, steps: range) -> Iterator[MetaBatch]:
        config = self.config
        for step in steps:
            draw = np.random.default_rng((config.seed, step))
            again = len(self._people) < config.people
            people = draw.choice(self._people, config.people, replace=again)
            yield [(int(person), int(draw.integers(2**31))) for person in people]

    def step(self, batch: MetaBatch, number: int) -> Terms:
        """An outer step; returns the adaptations' mean loss at their beginning and end."""
        config = self.config
        losses, deltas = [], []
        for person, seed in batch:
            under_way = Adaptation(
                self._networks,
                patches_of(self._patches, person),
                config=config.adapt,
                perceptual=self._perceptual,
                device=self._place.device,
                seed=seed,
            )
            losses.append([under_way.advance() for _ in range(config.inner)])
            deltas.append(under_way.deltas())
        move(self._networks, deltas, rate=config.rate * (1 - number / config.steps))
        first, last = np.mean(losses, axis=0)[[0, -1]]
        place = self._place.device
        return {
            "first": torch.tensor(float(first), device=place),
            "last": torch.tensor(float(last), device=place),
        }

    @property
    def notes(self) -> Mapping[str, str]:
        return {NOTE: json.dumps({"base": self._base, "sha256": self._digest})}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"base": self._base, "people": len(self._people)}


@torch.no_grad()
def move(
    networks: Mapping[Kind, RegionNetwork], deltas: Sequence[Mapping[str, Tensor]], *, rate: float
) -> None:
    """Moves the networks towards the adapted ones, by `rate` times the mean of the deltas."""
    for kind, network in networks.items():
        for name, parameter in network.named_parameters():
            changes = [each[f"{kind}.{name}"] for each in deltas if f"{kind}.{name}" in each]
            if changes:
                parameter.add_(torch.stack(changes).sum(0).to(parameter), alpha=rate / len(deltas))


def people_with_patches(patches: Mapping[Kind, Patches]) -> list[int]:
    """Rows of people (of their clips) with enough patches of every kind."""
    counts = [np.bincount(each.person, minlength=len(each.identity)) for each in patches.values()]
    return np.flatnonzero(np.min(counts, axis=0) >= LEAST_PATCHES).tolist()


def patches_of(patches: Mapping[Kind, Patches], person: int) -> dict[Kind, Patches]:
    """One person's patches, in memory."""
    found = {}
    for kind, each in patches.items():
        chosen = np.flatnonzero(each.person == person)
        found[kind] = Patches(
            inputs=np.asarray(each.inputs[chosen]),
            target=np.asarray(each.target[chosen]),
            person=np.zeros(len(chosen), np.int32),
            identity=np.asarray(each.identity[person : person + 1]),
        )
    return found


def base_of_start(path: Path) -> str:
    """The sha256 of the weights that a file made by `train meta` is a start for; "" if of none."""
    notes = read_header(path).notes
    # Joining keeps the notes of each file under its name.
    kept = [notes, *json.loads(notes.get(JOINED, "{}")).values()]
    return next((json.loads(each[NOTE])["sha256"] for each in kept if NOTE in each), "")
