"""`train meta`: a start from which the region networks learn a person in few steps (Section 3.3).

Reptile over people (Algorithm 1): adapt to one as `personalize` does, then move the start towards
where that led. (Equation 9 is printed with the opposite sign, which would move it away.)

A run lives in one folder: `state.pt` to go on from, `last.safetensors` (the start alone),
`log.jsonl` and `card.json`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metaportrait_cli.errors import TrainingError, UsageError
from metaportrait_cli.face.regions import Kind
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.regions import RegionNetwork
from metaportrait_cli.training.adapt import Adaptation, AdaptConfig
from metaportrait_cli.training.data.patches import Patches
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.regions import ARCHITECTURE, WEIGHTS
from metaportrait_cli.training.state import CARD, CHECKPOINT, LOG, Trained, write_card
from metaportrait_cli.weights.join import NOTES as JOINED
from metaportrait_cli.weights.store import read_header, save_networks

CURVE_STEPS = (0, 5, 10, 20, 33, 50, 75, 100)
LEAST_PATCHES = 8
"""Of a kind, for a person to learn from."""
NOTE = "meta"
"""In the file's metadata: how long it was learnt, and from which base."""


@dataclass(frozen=True)
class MetaConfig:
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
    config: MetaConfig,
    base: Path,
    networks: Mapping[Kind, RegionNetwork],
    patches: Mapping[Kind, Patches],
    output: Path,
    *,
    perceptual: PerceptualLoss | None,
    device: str = "cpu",
    minutes: float = float("inf"),
    stop_at: int | None = None,
    save_every: int = 10,
    on_report: Callable[[dict[str, Any]], None] = lambda _report: None,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `networks` are those of the file `base`, and change. Stops, resumable, after so many minutes or
    at outer step `stop_at`. Raises `UsageError` if nobody has enough patches, and `TrainingError`
    once a loss is not finite.
    """
    people = people_with_patches(patches)
    if not people:
        raise UsageError(f"nobody has {LEAST_PATCHES} mouths and eyes to learn from")
    place = torch.device(device)
    for network in networks.values():
        network.to(place)
    parts: dict[str, nn.Module | torch.optim.Optimizer] = {**networks}
    trained = Trained(parts)
    settings = asdict(config)
    output.mkdir(parents=True, exist_ok=True)
    step, seconds = 0, 0.0
    if (output / CHECKPOINT).is_file():
        step, _ = trained.restore(output / CHECKPOINT, config=settings)
        seconds = float(json.loads((output / CARD).read_text())["seconds"])

    def save() -> dict[str, Any]:
        card = {
            "architecture": "compact",
            "base": base.name,
            "step": step,
            "seconds": round(seconds + time.monotonic() - started, 1),
            "people": len(people),
            "device": device,
            "config": settings,
        }
        trained.save(output / CHECKPOINT, step=step, best=0.0, config=settings)
        write_start(output / WEIGHTS, base, networks, step=step)
        write_card(output / CARD, card)
        return card

    started = time.monotonic()
    last = min(config.steps, stop_at or config.steps)
    while step < last and time.monotonic() - started < 60 * minutes:
        draw = np.random.default_rng((config.seed, step))
        rate = config.rate * (1 - step / config.steps)
        found = []
        for person in draw.choice(people, config.people, replace=len(people) < config.people):
            under_way = Adaptation(
                networks,
                patches_of(patches, int(person)),
                config=config.adapt,
                perceptual=perceptual,
                device=place,
                seed=int(draw.integers(2**31)),
            )
            losses = [under_way.advance() for _ in range(config.inner)]
            found.append((losses, under_way.deltas()))
        if not np.isfinite([losses[-1] for losses, _ in found]).all():
            raise TrainingError(
                f"outer step {step}: the loss is not finite; go on from the last checkpoint with a"
                " lower learning rate"
            )
        move(networks, [deltas for _, deltas in found], rate=rate)
        step += 1
        record = {
            "step": step,
            "first": round(float(np.mean([losses[0] for losses, _ in found])), 5),
            "last": round(float(np.mean([losses[-1] for losses, _ in found])), 5),
        }
        with (output / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")
        on_report(record)
        if step % save_every == 0:
            save()
    return save()


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


def curve(
    networks: Mapping[Kind, RegionNetwork],
    learnt: Mapping[Kind, Patches],
    held: Mapping[Kind, Patches],
    *,
    config: AdaptConfig,
    perceptual: PerceptualLoss | None,
    judge: Callable[[RegionNetwork, Patches], float],
    device: torch.device,
    seed: int,
) -> dict[int, dict[Kind, float]]:
    """How near the networks come to a person's held patches after so many steps on the others."""
    under_way = Adaptation(
        networks, learnt, config=config, perceptual=perceptual, device=device, seed=seed
    )
    found = {}
    for step in range(CURVE_STEPS[-1] + 1):
        if step in CURVE_STEPS:
            found[step] = {
                kind: judge(network, held[kind]) for kind, network in under_way.adapted().items()
            }
        under_way.advance()
    return found


def write_start(
    path: Path, base: Path, networks: Mapping[Kind, RegionNetwork], *, step: int
) -> None:
    """The networks, at full precision, and which file they are a start for."""
    with base.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    notes = {NOTE: json.dumps({"step": step, "base": base.name, "sha256": digest})}
    parts: dict[str, Network] = {**networks}
    save_networks(path, parts, architecture=ARCHITECTURE, notes=notes)


def base_of_start(path: Path) -> str:
    """The sha256 of the weights that a file made by `train meta` is a start for; "" if of none."""
    notes = read_header(path).notes
    # Joining keeps the notes of each file under its name.
    kept = [notes, *json.loads(notes.get(JOINED, "{}")).values()]
    return next((json.loads(each[NOTE])["sha256"] for each in kept if NOTE in each), "")
