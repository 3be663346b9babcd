"""`train regions`: the networks that repaint mouths and eyes, from prepared data to weights.

A run lives in one folder: `patches/` (made once), `state.pt` to go on from, `last.safetensors`
with averaged weights, `log.jsonl` and `card.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metaportrait_cli.errors import TrainingError, UsageError, WeightsError
from metaportrait_cli.face.regions import KINDS, PATCHES, Kind
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.regions import (
    OPENING,
    OUTLINE,
    RegionConfig,
    RegionNetwork,
    Repainted,
)
from metaportrait_cli.training.data.pairs import Faces, is_held_out
from metaportrait_cli.training.data.patches import Patches, as_tensors, make_patches
from metaportrait_cli.training.data.shards import read_clips, read_index
from metaportrait_cli.training.losses import masked_l1, pyramid_l1
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.schedule import rate_share
from metaportrait_cli.training.state import CARD, CHECKPOINT, LOG, Average, Trained, write_card
from metaportrait_cli.weights.store import load_network, save_networks

ARCHITECTURE = "compact"
WEIGHTS = "last.safetensors"
MOUTH_FINE_WIDTH = 24
# Variations of light and colour; old photos have none.
GAIN_RANGE, CHANNEL_GAIN_RANGE = 0.15, 0.04
SATURATION_RANGE, GREY_SHARE = (0.7, 1.2), 0.12
LUMA = (0.299, 0.587, 0.114)
PICTURES = slice(0, 6)  # channels of the inputs: warped and own


@dataclass(frozen=True)
class RegionWeights:
    """Weights of the terms."""

    pixel: float = 3.0
    inside: float = 2.0
    """Within lips or lids"""
    perceptual: float = 4.0
    texture: float = 0.15
    """Of the mouth opening, or the iris"""
    mask: float = 0.01


@dataclass(frozen=True)
class RegionTraining:
    """What is trained and how; a run can only be continued with the same."""

    kinds: tuple[Kind, ...] = KINDS
    model: RegionConfig = field(default_factory=RegionConfig)
    weights: RegionWeights = field(default_factory=RegionWeights)
    steps: int = 6000
    batch: int = 24
    """Patches of each kind a step."""
    lr: float = 6e-4
    warm_up: int = 100
    clip_norm: float = 1.0
    mask_from: float = 0.2
    """Share of the steps after which painting costs. Before, nothing worth its price is painted,
    and the mask would close for good."""
    hard: float = 0.5
    """Share of samples in which lips or lids are opened or closed: most others are copied."""
    average: float = 0.998
    held_out: float = 0.05
    seed: int = 0


class Regions(nn.Module):
    """The networks that are trained."""

    def __init__(self, config: RegionTraining) -> None:
        super().__init__()
        if "mouth" in config.kinds:
            # Patches are twice as fine: one level more.
            widths = (MOUTH_FINE_WIDTH, *config.model.widths)
            self.mouth = RegionNetwork(
                replace(config.model, keep_shown=True, patch=PATCHES["mouth"], widths=widths)
            )
        if "eyes" in config.kinds:
            self.eyes = RegionNetwork(replace(config.model, patch=PATCHES["eyes"]))

    def of(self, kind: Kind) -> RegionNetwork:
        """The one for a kind of region."""
        return self.mouth if kind == "mouth" else self.eyes


def region_terms(
    found: Repainted,
    inputs: Tensor,
    target: Tensor,
    *,
    perceptual: PerceptualLoss | None,
    weights: RegionWeights,
) -> dict[str, Tensor]:
    """Weighted scalars by name, for inputs (B, 11, P, P) and target (B, 3, P, P) in [0, 1]."""
    inside = inputs[:, OUTLINE : OUTLINE + 1]
    terms = {
        "pixel": weights.pixel * pyramid_l1(found.image, target).mean(),
        "inside": weights.inside * masked_l1(found.image, target, inside).mean(),
        "mask": weights.mask * found.mask.mean(),
    }
    if perceptual is not None:
        opening = inputs[:, OPENING : OPENING + 1]
        distance, texture = perceptual.with_texture(found.image, target, opening)
        terms["perceptual"] = weights.perceptual * distance.mean()
        terms["texture"] = weights.texture * texture.mean()
    return terms


def train_regions(
    config: RegionTraining,
    data: Path,
    output: Path,
    *,
    identity: IdentityNetwork,
    perceptual: PerceptualLoss | None,
    device: str = "cpu",
    bf16: bool = False,
    minutes: float = float("inf"),
    stop_at: int | None = None,
    start_from: Path | None = None,
    log_every: int = 50,
    judge_every: int = 500,
    on_report: Callable[[dict[str, Any]], None] = lambda _report: None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `start_from` gives a new run the weights of an earlier one. Stops, resumable, after so many
    minutes or at step `stop_at`. Raises `TrainingError` with the step's number once a loss is not
    finite, and `WeightsError` if it can't start from those weights.
    """
    run = _set_up(config, torch.device(device), bf16, start_from=start_from, perceptual=perceptual)
    settings = asdict(config)
    step, seconds = 0, 0.0
    output.mkdir(parents=True, exist_ok=True)
    if (output / CHECKPOINT).is_file():
        step, _ = run.trained.restore(output / CHECKPOINT, config=settings)
        seconds = float(json.loads((output / CARD).read_text())["seconds"])
    learnt, judged = _patches(config, data, output, identity=identity, on_progress=on_progress)

    def say(record: dict[str, Any]) -> None:
        with (output / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")
        on_report(record)

    started = time.monotonic()
    sums: dict[str, float] = {}
    scores: dict[str, dict[str, float]] = {}
    last = min(config.steps, stop_at or config.steps)
    while step < last and time.monotonic() - started < 60 * minutes:
        terms = _step(run, learnt, step=step)
        step += 1
        for kind, average in run.averages.items():
            average.update(run.model.of(kind), step)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % log_every == 0:
            means = {name: round(value / log_every, 5) for name, value in sums.items()}
            if not all(np.isfinite(list(means.values()))):
                raise TrainingError(
                    f"step {step}: the loss is not finite; go on from the last checkpoint with a"
                    " lower learning rate"
                )
            sums = {}
            spent = round(seconds + time.monotonic() - started, 1)
            say({"step": step, "seconds": spent, "terms": means})
        if step % judge_every == 0 or step == config.steps:
            scores = {
                kind: judge_patches(average.network, judged[kind], perceptual=run.perceptual)
                for kind, average in run.averages.items()
            }
            say({"step": step, "held_out": scores})
            card = _card(config, step, seconds + time.monotonic() - started, device, scores)
            _save(output, run, step=step, settings=settings, card=card)
    card = _card(config, step, seconds + time.monotonic() - started, device, scores)
    _save(output, run, step=step, settings=settings, card=card)
    return card


@dataclass
class _Run:
    """What the loop works on."""

    config: RegionTraining
    bf16: bool
    device: torch.device
    model: Regions
    averages: dict[Kind, Average[RegionNetwork]]
    optimizer: torch.optim.Optimizer
    perceptual: PerceptualLoss | None

    @property
    def trained(self) -> Trained:
        averages = {f"average_{kind}": average.network for kind, average in self.averages.items()}
        return Trained({"model": self.model, "optimizer": self.optimizer, **averages})


def _set_up(
    config: RegionTraining,
    device: torch.device,
    bf16: bool,
    *,
    start_from: Path | None,
    perceptual: PerceptualLoss | None,
) -> _Run:
    torch.manual_seed(config.seed)
    model = Regions(config)
    if start_from is not None:
        for kind in config.kinds:
            earlier = load_network(RegionNetwork, start_from, part=kind)
            if earlier.config != model.of(kind).config:
                raise WeightsError(
                    f"{start_from}: its {kind} network is built otherwise than what is trained"
                    " here; start from other weights, or without"
                )
            model.of(kind).load_state_dict(earlier.state_dict())
    model = channels_last(model.to(device))
    return _Run(
        config=config,
        bf16=bf16,
        device=device,
        model=model,
        averages={kind: Average(model.of(kind), decay=config.average) for kind in config.kinds},
        optimizer=torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.9, 0.99)),
        perceptual=perceptual.to(device) if perceptual is not None else None,
    )


def _step(run: _Run, learnt: Mapping[Kind, Patches], *, step: int) -> dict[str, Tensor]:
    """One step of all networks; returns the weighted terms."""
    config = run.config
    share = rate_share(step, steps=config.steps, warm_up=config.warm_up)
    for group in run.optimizer.param_groups:
        group["lr"] = config.lr * share
    terms: dict[str, Tensor] = {}
    autocast = torch.autocast(run.device.type, torch.bfloat16)
    with autocast if run.bf16 else nullcontext():
        for kind in config.kinds:
            draw = np.random.default_rng((config.seed, step, KINDS.index(kind)))
            inputs, target, known = drawn(
                learnt[kind], draw, config.batch, kind, run.device, hard=config.hard
            )
            inputs, target = faded(inputs, target, draw)
            found = run.model.of(kind)(inputs, known)
            part = region_terms(
                found, inputs, target, perceptual=run.perceptual, weights=config.weights
            )
            if step < config.mask_from * config.steps:
                del part["mask"]
            terms |= {f"{kind}_{name}": value for name, value in part.items()}
    run.optimizer.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), config.clip_norm)
    run.optimizer.step()
    return terms


@torch.no_grad()
def judge_patches(
    network: RegionNetwork, patches: Patches, *, perceptual: PerceptualLoss | None, most: int = 256
) -> dict[str, float]:
    """Mean L1 and perceptual distance over held-out patches; `warped_…` are those of the warp."""
    chosen = np.linspace(0, len(patches.inputs) - 1, min(most, len(patches.inputs))).astype(int)
    totals: dict[str, float] = {}
    device = next(network.parameters()).device
    for part in np.array_split(chosen, max(1, len(chosen) // 32)):
        if not len(part):
            continue
        inputs, target, identity = as_tensors(patches, part, device=device)
        images = {"": network(inputs, identity).image.clamp(0, 1), "warped_": inputs[:, :3]}
        for name, image in images.items():
            scores = {"l1": (image - target).abs().mean(dim=(1, 2, 3))}
            if perceptual is not None:
                scores["perceptual"] = perceptual.distance(image, target)
            for metric, values in scores.items():
                key = name + metric
                totals[key] = totals.get(key, 0.0) + float(values.sum()) / len(chosen)
    return totals


def _patches(
    config: RegionTraining,
    data: Path,
    output: Path,
    *,
    identity: IdentityNetwork,
    on_progress: Callable[[int, int], None],
) -> tuple[dict[Kind, Patches], dict[Kind, Patches]]:
    """Those to learn from and those to judge by, made once and kept in the run's folder."""
    folders = {name: output / "patches" / name for name in ("learnt", "judged")}
    if not all((folder / "complete").is_file() for folder in folders.values()):
        _, stems = read_index(data)
        people = sorted({clip.identity for stem in stems for clip in read_clips(stem)})
        kept = {person for person in people if is_held_out(person, share=config.held_out)}
        groups = {"learnt": sorted(set(people) - kept), "judged": sorted(kept)}
        for number, (name, folder) in enumerate(folders.items()):
            folder.mkdir(parents=True, exist_ok=True)

            def shards(before: int = number * len(stems)) -> Iterator[Faces]:
                for done, faces in enumerate(Faces.shards(data)):
                    on_progress(before + done, len(folders) * len(stems))
                    yield faces

            made = make_patches(shards(), people=groups[name], identity=identity, seed=config.seed)
            for kind in KINDS:
                made[kind].save(folder, kind)
            (folder / "complete").touch()
    learnt, judged = (
        {kind: Patches.load(folders[name], kind) for kind in KINDS} for name in folders
    )
    return learnt, judged


def learnt_patches(run: Path) -> dict[Kind, Patches]:
    """What a run in this folder learns from. Raises `UsageError` before it has made them."""
    folder = run / "patches" / "learnt"
    if not (folder / "complete").is_file():
        raise UsageError(f"{run}: no patches here; start with: metaportrait train regions")
    return {kind: Patches.load(folder, kind) for kind in KINDS}


def drawn(
    patches: Patches,
    draw: np.random.Generator,
    count: int,
    kind: Kind,
    device: torch.device,
    *,
    hard: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """A random batch, in varied light; mouths are mirrored half of the time.

    The share `hard` of it is of `Patches.hard`.
    """
    # People alike, however many pictures they have.
    person = draw.choice(np.unique(patches.person), count)
    first, last = (np.searchsorted(patches.person, person, side) for side in ("left", "right"))
    chosen: NDArray[np.integer] = draw.integers(first, last)
    if hard and len(patches.hard):
        chosen = np.where(draw.random(count) < hard, draw.choice(patches.hard, count), chosen)
    inputs, target, identity = as_tensors(patches, chosen, device=device)
    gain = draw.uniform(1 - GAIN_RANGE, 1 + GAIN_RANGE, (count, 1))
    gain = gain * draw.uniform(1 - CHANNEL_GAIN_RANGE, 1 + CHANNEL_GAIN_RANGE, (count, 3))
    gains = torch.from_numpy(gain.astype(np.float32)).to(device)[:, :, None, None]
    inputs[:, PICTURES] = (inputs[:, PICTURES] * gains.repeat(1, 2, 1, 1)).clamp(0, 1)
    target = (target * gains).clamp(0, 1)
    if kind == "mouth" and draw.random() < 0.5:
        inputs, target = inputs.flip(-1), target.flip(-1)
    return inputs, target, identity


def faded(inputs: Tensor, target: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch in colours more or less strong, or none at all, as in old photos."""
    count = len(inputs)
    saturation = draw.uniform(*SATURATION_RANGE, (count, 1, 1))
    saturation[draw.random(count) < GREY_SHARE] = 0
    mixed = saturation * np.eye(3) + (1 - saturation) * np.array(LUMA)  # (B, 3, 3)
    matrix = torch.from_numpy(mixed.astype(np.float32)).to(inputs.device)

    def mix(pictures: Tensor) -> Tensor:
        return torch.einsum("bij,bjhw->bihw", matrix, pictures).clamp(0, 1)

    warped, own = inputs[:, PICTURES].split(3, dim=1)
    rest = inputs[:, PICTURES.stop :]
    return torch.cat([mix(warped), mix(own), rest], dim=1), mix(target)


def _card(
    config: RegionTraining,
    step: int,
    seconds: float,
    device: str,
    scores: dict[str, dict[str, float]],
) -> dict[str, Any]:
    return {
        "architecture": ARCHITECTURE,
        "step": step,
        "seconds": round(seconds, 1),
        "device": device,
        "torch": torch.__version__,
        "config": asdict(config),
        "held_out": scores,
    }


def _save(
    output: Path,
    run: _Run,
    *,
    step: int,
    settings: dict[str, Any],
    card: dict[str, Any],
) -> None:
    run.trained.save(output / CHECKPOINT, step=step, best=0.0, config=settings)
    networks: dict[str, Network] = {kind: average.network for kind, average in run.averages.items()}
    notes = {"training": json.dumps({"step": step})}
    save_networks(output / WEIGHTS, networks, architecture=ARCHITECTURE, notes=notes)
    write_card(output / CARD, card)
