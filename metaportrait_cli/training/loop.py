"""The one loop that all trainings run in; what is learnt, and from what, is a `Task`.

A run lives in one folder (see `state`) and goes on there when it is started again, exactly as if it
had never stopped.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import torch

from metaportrait_cli.errors import TrainingError
from metaportrait_cli.networks.network import Network
from metaportrait_cli.training.descent import Descent, DescentConfig, NetworkT, Terms
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions
from metaportrait_cli.training.state import BEST, LAST, RunFolder, Scores, Standing, Stateful
from metaportrait_cli.weights.store import save_networks

BatchT = TypeVar("BatchT")
Record = dict[str, Any]
"""A line of the log: `step` with `terms` (means since the last report) and `seconds_per_step`, or
`step` with `held_out` scores."""


def unheard(_record: Record) -> None:
    """The listener that does nothing."""


class Task(ABC, Generic[BatchT]):
    """What differs between trainings."""

    architecture: str
    """Of the weights that it makes"""
    config: Any
    """A frozen dataclass with `steps`; a run can only be continued with the same"""

    @property
    @abstractmethod
    def state(self) -> Stateful:
        """Everything that has a state and that steps change."""

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, Network]:
        """The networks to save, by their part in the file."""

    @abstractmethod
    def batches(self, steps: range) -> Iterator[BatchT]:
        """One for each step; it depends on the step's number alone."""

    @abstractmethod
    def step(self, batch: BatchT, number: int) -> Terms:
        """Learns from a batch, after `number` earlier ones; what it returns is logged."""

    def judge(self) -> Scores:
        """Scores of `weights` on people kept aside; nothing where nobody is."""
        return {}

    def merit(self, scores: Scores) -> float:
        """One number out of `judge`'s: the lowest so far is kept."""
        del scores
        return math.inf

    @property
    def notes(self) -> Mapping[str, str]:
        """What the weights' metadata say besides the step."""
        return {}

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the card says besides what every run has."""
        return {}


class DescendingTask(Task[BatchT], Generic[BatchT, NetworkT]):
    """A task that is one descent of some networks, judged by their moving averages."""

    def __init__(
        self,
        config: DescentConfig,
        networks: Mapping[str, NetworkT],
        place: Place,
        *,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        """Without `perceptual` pixels alone are compared."""
        self.config = config
        self._place = place
        self._perceptual = perceptual.to(place.device) if perceptual is not None else None
        self._descent = Descent(networks, config, place)

    @property
    def state(self) -> Stateful:
        return self._descent.state

    @property
    def weights(self) -> Mapping[str, NetworkT]:
        return self._descent.averaged

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"perceptual_loss": self._perceptual is not None}


def train(
    task: Task[BatchT],
    folder: RunFolder,
    *,
    options: RunOptions,
    place: Place,
    on_record: Callable[[Record], None] = unheard,
) -> dict[str, Any]:
    """Trains, or goes on training, in the run's folder; returns the card.

    Raises `TrainingError` with the step's number once a loss, a gradient or a weight is not finite:
    the last checkpoint stays as it was. Raises `UsageError` if another run is at the folder.
    """
    with folder.claimed() if place.rank == 0 else nullcontext():
        return _train(task, folder, options=options, place=place, on_record=on_record)


def _train(
    task: Task[BatchT],
    folder: RunFolder,
    *,
    options: RunOptions,
    place: Place,
    on_record: Callable[[Record], None],
) -> dict[str, Any]:
    standing = folder.restore(task.state)
    started_at, started = standing.step, time.monotonic()
    seconds_before = standing.seconds
    saved = reported = started
    last = min(task.config.steps, options.stop_at or task.config.steps)
    batches = task.batches(range(standing.step, last))
    watch = _Watch(place.device)

    def save() -> None:
        watch.check()
        standing.seconds = seconds_before + time.monotonic() - started
        if place.rank == 0:
            save_weights(task, folder, LAST, standing.step)
            folder.write_card(card_of(task, standing, place))
            # Last, for it says that the others are there.
            folder.save(task.state, standing)

    def say(record: Record) -> None:
        if place.rank == 0:
            folder.log(record)
            on_record(record)

    def report() -> None:
        nonlocal watch, reported
        means = watch.means()  # raises if a number was not finite
        spent = (time.monotonic() - reported) / watch.count
        say({"step": standing.step, "terms": means, "seconds_per_step": round(spent, 4)})
        watch, reported = _Watch(place.device), time.monotonic()

    while standing.step < last:
        if place.agreed(time.monotonic() - started >= 60 * options.minutes):
            break
        watch.add(task.step(next(batches), standing.step), standing.step + 1)
        standing.step += 1

        if standing.step % options.log_every == 0 or standing.step == last:
            report()
        if standing.step % options.judge_every == 0 or standing.step == task.config.steps:
            watch.check()
            _judge(task, folder, standing, place, say)
            reported = time.monotonic()
        if time.monotonic() - saved > 60 * options.save_minutes:
            save()
            saved = time.monotonic()

    if watch.count:
        report()
    if standing.step > started_at:
        save()
    return card_of(task, standing, place)


def _judge(
    task: Task[BatchT],
    folder: RunFolder,
    standing: Standing,
    place: Place,
    say: Callable[[Record], None],
) -> None:
    if place.rank != 0:
        return
    scores = task.judge()
    if not scores:
        return
    standing.scores = scores
    say({"step": standing.step, "held_out": scores})
    merit = task.merit(scores)
    if merit < standing.best:
        standing.best = merit
        save_weights(task, folder, BEST, standing.step)


def save_weights(task: Task[BatchT], folder: RunFolder, name: str, step: int) -> None:
    """Writes the weights of now. Raises `TrainingError` if one is not finite."""
    weights = task.weights
    for part, network in weights.items():
        if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
            raise _not_finite(step, f"a weight of {part!r}")
    notes = {"training": json.dumps({"step": step}), **task.notes}
    save_networks(folder.path / name, weights, architecture=task.architecture, notes=notes)


def card_of(task: Task[BatchT], standing: Standing, place: Place) -> dict[str, Any]:
    """What is to be known about a run and the weights it made."""
    networks = task.weights.values()
    return {
        "architecture": task.architecture,
        "step": standing.step,
        "seconds": round(standing.seconds, 1),
        "device": place.name,
        "threads": torch.get_num_threads(),
        "processes": place.world,
        "precision": "bf16" if place.bf16 else "fp32",
        "torch": torch.__version__,
        "parameters": sum(value.numel() for each in networks for value in each.parameters()),
        **task.facts,
        "config": asdict(task.config),
        "held_out": standing.scores,
        "best": standing.best if math.isfinite(standing.best) else None,
    }


class _Watch:
    """Sums of terms on the device: looked at now and then, for looking makes a GPU wait."""

    def __init__(self, device: torch.device) -> None:
        self.count = 0
        self._sums: Terms = {}
        self._bad_step = torch.full((), -1, device=device)

    def add(self, terms: Terms, step: int) -> None:
        self.count += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        finite = torch.isfinite(torch.stack([value.detach() for value in terms.values()])).all()
        first = (self._bad_step < 0) & ~finite
        self._bad_step = torch.where(first, step, self._bad_step)

    def check(self) -> None:
        """Raises `TrainingError` if a number was not finite, with the first such step."""
        step = int(self._bad_step)
        if step >= 0:
            raise _not_finite(step, "the loss or its gradient")

    def means(self) -> dict[str, float]:
        self.check()
        return {name: round(float(value) / self.count, 5) for name, value in self._sums.items()}


def _not_finite(step: int, what: str) -> TrainingError:
    return TrainingError(
        f"step {step}: {what} is not finite; go on from the last checkpoint with a lower learning"
        " rate"
    )
