"""`train regions`: the networks that repaint mouths and eyes, from prepared data to weights.

The run's folder also holds `patches/`, made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.errors import UsageError, WeightsError
from metaportrait_cli.face.regions import KINDS, PATCHES, Kind
from metaportrait_cli.networks import teeth as drawn_teeth
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.networks.mouth import REGION_NETWORKS
from metaportrait_cli.networks.regions import (
    OPENING,
    OUTLINE,
    UNKNOWN,
    RegionConfig,
    RegionNetwork,
    Repainted,
)
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.mouths.teeth import TeethPainter
from metaportrait_cli.training.critic import CriticTraining, Critique
from metaportrait_cli.training.data.pairs import Faces, kept_aside
from metaportrait_cli.training.data.patches import Patches, as_tensors, make_patches
from metaportrait_cli.training.data.shards import read_clips, read_index
from metaportrait_cli.training.descent import DescentConfig, Terms
from metaportrait_cli.training.loop import DescendingTask, Record, train, unheard
from metaportrait_cli.training.losses import edges_apart, masked_l1, pyramid_l1
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores, Stateful
from metaportrait_cli.weights.store import load_network

MOUTH_FINE_WIDTH = 24
# Variations of light and colour; old photos have none.
GAIN_RANGE, CHANNEL_GAIN_RANGE = 0.15, 0.04
SATURATION_RANGE, GREY_SHARE = (0.7, 1.2), 0.12
LUMA = (0.299, 0.587, 0.114)
SOFT = 4
"""Pixels of a mouth's patch that count as one where teeth are compared"""
# Channels of the inputs that are colours: warped and own, of mouths what is drawn as well.
COLOURS: dict[Kind, tuple[slice, ...]] = {
    "mouth": drawn_teeth.COLOURS,
    "eyes": (slice(0, 3), slice(3, 6)),
}


@dataclass(frozen=True)
class RegionWeights:
    """Weights of the terms."""

    pixel: float = 3.0
    inside: float = 2.0
    """Within lips or lids"""
    opening: float = 3.0
    """Within the mouth's opening, softly: teeth are never where they are drawn to a pixel"""
    edges: float = 2.0
    """How strong gradients are there, wherever they lie"""
    perceptual: float = 4.0
    texture: float = 0.15
    """Of the mouth opening, or the iris"""
    mask: float = 0.01


@dataclass(frozen=True)
class RegionTraining(DescentConfig):
    """What is trained and how; a run can only be continued with the same."""

    kinds: tuple[Kind, ...] = KINDS
    model: RegionConfig = field(default_factory=RegionConfig)
    weights: RegionWeights = field(default_factory=RegionWeights)
    steps: int = 6000
    batch: int = 24
    """Patches of each kind a step."""
    lr: float = 6e-4
    mask_from: float = 0.2
    """Share of the steps after which painting costs. Before, nothing worth its price is painted,
    and the mask would close for good."""
    hard: float = 0.5
    """Share of samples in which lips or lids are opened or closed: most others are copied."""
    critic: CriticTraining | None = None
    """Of mouths, see `training/critic.py`: once they are learnt without"""


def fresh_networks(config: RegionTraining) -> dict[Kind, RegionNetwork]:
    """The networks that are trained, as they are before."""
    torch.manual_seed(config.seed)
    # The mouth's patches are twice as fine: one level more.
    fine = (MOUTH_FINE_WIDTH, *config.model.widths)
    models: dict[Kind, RegionConfig] = {
        "mouth": replace(config.model, keep_shown=True, patch=PATCHES["mouth"], widths=fine),
        "eyes": replace(config.model, patch=PATCHES["eyes"]),
    }
    return {kind: REGION_NETWORKS[kind](models[kind]) for kind in config.kinds}


def train_regions(
    config: RegionTraining,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    identity: IdentityNetwork,
    teeth: TeethPainter,
    start_from: Path | None = None,
    perceptual: PerceptualLoss | None = None,
    on_record: Callable[[Record], None] = unheard,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `start_from` gives a new run the weights of an earlier one. Raises `WeightsError` if it can't
    start from those.
    """
    folder = RunFolder(output, config)
    networks = fresh_networks(config)
    if start_from is not None:
        _start(networks, start_from)
    patches = made_patches(
        config, data, output, identity=identity, teeth=teeth, on_progress=on_progress
    )
    with taking_part(options) as place:
        task = RegionTask(config, networks, *patches, place=place, perceptual=perceptual)
        return train(task, folder, options=options, place=place, on_record=on_record)


RegionBatch = dict[Kind, tuple[Tensor, Tensor, Tensor]]
"""Inputs (B, C, P, P), target (B, 3, P, P) and identity (B, 128) of each kind"""


class RegionTask(DescendingTask[RegionBatch, RegionNetwork]):
    """Patches of mouths and eyes under the warp, and as they really were."""

    architecture = "compact"
    config: RegionTraining

    def __init__(
        self,
        config: RegionTraining,
        networks: Mapping[Kind, RegionNetwork],
        learnt: Mapping[Kind, Patches],
        judged: Mapping[Kind, Patches],
        *,
        place: Place,
        perceptual: PerceptualLoss | None,
    ) -> None:
        self._learnt, self._judged = learnt, judged
        named: dict[str, RegionNetwork] = {**networks}
        super().__init__(config, named, place, perceptual=perceptual)
        self._critique = Critique(config.critic, config, place) if config.critic else None

    @property
    def state(self) -> Stateful:
        return {**super().state, **(self._critique.state if self._critique else {})}

    def batches(self, steps: range) -> Iterator[RegionBatch]:
        config, place = self.config, self._place
        for step in steps:
            batch: RegionBatch = {}
            for kind in config.kinds:
                number = step * place.world + place.rank
                draw = np.random.default_rng((config.seed, number, KINDS.index(kind)))
                inputs, target, known = drawn(
                    self._learnt[kind], draw, config.batch, kind, place.device, hard=config.hard
                )
                batch[kind] = (*faded(inputs, target, draw, kind), known)
            yield batch

    def step(self, batch: RegionBatch, number: int) -> Terms:
        config = self.config

        def terms() -> Terms:
            found: Terms = {}
            for kind, (inputs, target, known) in batch.items():
                repainted = self._descent.networks[kind](inputs, known)
                part = region_terms(
                    repainted, inputs, target, perceptual=self._perceptual, weights=config.weights
                )
                if number < config.mask_from * config.steps:
                    del part["mask"]
                if self._critique and kind == "mouth":
                    part |= self._critique.terms(repainted.image, target, inputs, number)
                found |= {f"{kind}_{name}": value for name, value in part.items()}
            return found

        found = self._descent.step(number, terms)
        return {**found, **(self._critique.learn(number) if self._critique else {})}

    def judge(self) -> Scores:
        found = {
            kind: judge_patches(self.weights[kind], self._judged[kind], perceptual=self._perceptual)
            for kind in self.config.kinds
        }
        return {kind: scores for kind, scores in found.items() if scores}

    def merit(self, scores: Scores) -> float:
        return sum(kind["l1"] + kind.get("perceptual", 0.0) for kind in scores.values())

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "data": {kind: len(self._learnt[kind].inputs) for kind in self.config.kinds},
            **super().facts,
        }


def _start(networks: Mapping[Kind, RegionNetwork], weights: Path) -> None:
    for kind, network in networks.items():
        earlier = load_network(REGION_NETWORKS[kind], weights, part=kind)
        if earlier.config != network.config:
            raise WeightsError(
                f"{weights}: its {kind} network is built otherwise than what is trained"
                " here; start from other weights, or without"
            )
        network.load_state_dict(earlier.state_dict())


def region_terms(
    found: Repainted,
    inputs: Tensor,
    target: Tensor,
    *,
    perceptual: PerceptualLoss | None,
    weights: RegionWeights,
) -> Terms:
    """Weighted scalars by name, for inputs (B, 11, P, P) and target (B, 3, P, P) in [0, 1]."""
    inside = inputs[:, OUTLINE : OUTLINE + 1]
    terms = {
        "pixel": weights.pixel * pyramid_l1(found.image, target).mean(),
        "inside": weights.inside * masked_l1(found.image, target, inside).mean(),
        "mask": weights.mask * found.mask.mean(),
    }
    opening = inputs[:, OPENING : OPENING + 1]
    if inputs.shape[1] == drawn_teeth.DRAWN.stop:
        unknown = inputs[:, UNKNOWN : UNKNOWN + 1]
        ours, theirs = (F.avg_pool2d(x * unknown, SOFT) for x in (found.image, target))
        apart = masked_l1(ours, theirs, F.avg_pool2d(unknown, SOFT))
        terms["opening"] = weights.opening * apart.mean()
        terms["edges"] = weights.edges * edges_apart(found.image, target, unknown).mean()
    if perceptual is not None:
        distance, texture = perceptual.with_texture(found.image, target, opening)
        terms["perceptual"] = weights.perceptual * distance.mean()
        terms["texture"] = weights.texture * texture.mean()
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


def made_patches(
    config: RegionTraining,
    data: Path,
    output: Path,
    *,
    identity: IdentityNetwork,
    teeth: TeethPainter,
    on_progress: Progress,
) -> tuple[dict[Kind, Patches], dict[Kind, Patches]]:
    """Those to learn from and those to judge by, made once and kept in the run's folder."""
    folders = {name: output / "patches" / name for name in ("learnt", "judged")}
    if not all((folder / "complete").is_file() for folder in folders.values()):
        _, stems = read_index(data)
        everybody = (clip.identity for stem in stems for clip in read_clips(stem))
        people, kept = kept_aside(everybody, share=config.held_out)
        groups = {"learnt": people, "judged": kept}
        for number, (name, folder) in enumerate(folders.items()):
            folder.mkdir(parents=True, exist_ok=True)

            def shards(before: int = number * len(stems)) -> Iterator[Faces]:
                for done, faces in enumerate(Faces.shards(data)):
                    on_progress("patches", before + done, len(folders) * len(stems))
                    yield faces

            made = make_patches(
                shards(), people=groups[name], identity=identity, teeth=teeth, seed=config.seed
            )
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
    # People nearly alike, however many pictures they have; but a photo tells of its mouth alone.
    people, owned = np.unique(patches.person, return_counts=True)
    person = draw.choice(people, count, p=np.sqrt(owned) / np.sqrt(owned).sum())
    first, last = (np.searchsorted(patches.person, person, side) for side in ("left", "right"))
    chosen: NDArray[np.integer] = draw.integers(first, last)
    if hard and len(patches.hard):
        chosen = np.where(draw.random(count) < hard, draw.choice(patches.hard, count), chosen)
    inputs, target, identity = as_tensors(patches, chosen, device=device)
    gain = draw.uniform(1 - GAIN_RANGE, 1 + GAIN_RANGE, (count, 1))
    gain = gain * draw.uniform(1 - CHANNEL_GAIN_RANGE, 1 + CHANNEL_GAIN_RANGE, (count, 3))
    gains = torch.from_numpy(gain.astype(np.float32)).to(device)[:, :, None, None]
    for colours in COLOURS[kind]:
        inputs[:, colours] = (inputs[:, colours] * gains).clamp(0, 1)
    target = (target * gains).clamp(0, 1)
    if kind == "mouth" and draw.random() < 0.5:
        inputs, target = inputs.flip(-1), target.flip(-1)
    return inputs, target, identity


def faded(
    inputs: Tensor, target: Tensor, draw: np.random.Generator, kind: Kind
) -> tuple[Tensor, Tensor]:
    """A batch in colours more or less strong, or none at all, as in old photos."""
    count = len(inputs)
    saturation = draw.uniform(*SATURATION_RANGE, (count, 1, 1))
    saturation[draw.random(count) < GREY_SHARE] = 0
    mixed = saturation * np.eye(3) + (1 - saturation) * np.array(LUMA)  # (B, 3, 3)
    matrix = torch.from_numpy(mixed.astype(np.float32)).to(inputs.device)

    def mix(pictures: Tensor) -> Tensor:
        return torch.einsum("bij,bjhw->bihw", matrix, pictures).clamp(0, 1)

    inputs = inputs.clone()
    for colours in COLOURS[kind]:
        inputs[:, colours] = mix(inputs[:, colours])
    return inputs, mix(target)
