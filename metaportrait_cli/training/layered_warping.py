"""`train layers`: the network that corrects the flow of portraits in layers.

    metaportrait prepare DATA -o prepared --size 256
    metaportrait train layers prepared -o run --start-from compact.safetensors

What is learnt is judged by the composed picture, background and all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import enlarge, warp
from metaportrait_cli.networks.compact_warping import CompactWarping, CompactWarpingConfig
from metaportrait_cli.networks.layered_warping import LayeredConditions, LayeredWarping
from metaportrait_cli.render.layered import STILL
from metaportrait_cli.training.data.layered_pairs import LayeredPairs, held_out_layered
from metaportrait_cli.training.data.pairs import Sample
from metaportrait_cli.training.descent import DescentConfig, Terms
from metaportrait_cli.training.loop import Record, train, unheard
from metaportrait_cli.training.losses import masked_l1, pyramid_l1
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores
from metaportrait_cli.training.warping import (
    JUDGED,
    JUDGED_AT_ONCE,
    PairTask,
    WarpingWeights,
    grouped,
    roughness,
)
from metaportrait_cli.training.warping import PART as SHEET_PART
from metaportrait_cli.weights.store import load_network, read_header

PART = "layers"


@dataclass(frozen=True)
class LayeredWeights(WarpingWeights):
    """Weights of the terms; `perceptual` is of the whole picture at half its size."""

    window: float = 1.0
    """Of a window of half its side at full size, another one each step: all of it would take most
    of the time"""
    hidden: float = 0.05
    """For the share of the sheet that is hidden: only where it helps"""


@dataclass(frozen=True)
class LayeredTraining(DescentConfig):
    """What is trained and how; a run can only be continued with the same."""

    model: CompactWarpingConfig = field(default_factory=CompactWarpingConfig)
    weights: LayeredWeights = field(default_factory=LayeredWeights)
    steps: int = 2000
    batch: int = 8
    lr: float = 4e-4
    betas: tuple[float, float] = (0.5, 0.99)
    warm_up: int = 50
    plateau: float = 0.3
    average: float = 0.995


@dataclass(frozen=True)
class LayeredBatch:
    """Samples as the network takes them, pictures and maps in [0, 1]; see `LayeredPairs`."""

    source: Tensor
    target: Tensor
    plate: Tensor
    person: Tensor
    source_lines: Tensor
    lines: Tensor
    gap: Tensor
    cover: Tensor
    flow: Tensor
    known: Tensor
    teacher: Tensor
    trust: Tensor

    @classmethod
    def of(cls, sample: Sample, device: torch.device) -> LayeredBatch:
        """Collated samples, (B, …) each, on the device."""
        moved = {each.name: sample[each.name].to(device, non_blocking=True) for each in fields(cls)}
        return cls(
            **{
                name: value.float() / 255 if value.dtype == torch.uint8 else value
                for name, value in moved.items()
            }
        )

    @property
    def driven(self) -> LayeredConditions:
        """What is asked for."""
        return LayeredConditions(flow=self.flow, lines=self.lines, gap=self.gap, cover=self.cover)

    def corrected(self, network: LayeredWarping) -> tuple[Tensor, Tensor]:
        """See `LayeredWarping.layered`."""
        source = network.encode(self.source, self.source_lines)
        layers = network.encode_layers(self.known, self.plate)
        return network.layered(source, layers, self.driven)

    def composed(self, flow: Tensor, shown: Tensor) -> Tensor:
        """The picture (B, 3, S, S) under a flow (B, 2, G, G), `shown` (B, 1, G, G) of the sheet.

        What `render.layered` does, so that it can be descended.
        """
        side = self.plate.shape[-1]
        around = F.avg_pool2d(F.pad(self.cover, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        seen = enlarge(self.cover * around * shown, side)
        person = warp(self.person, enlarge(flow, side)) * seen
        frame = self.plate * (1 - person[:, 3:]) + person[:, :3]
        moves = ((flow**2).sum(1, keepdim=True) + 1e-12).sqrt() / (2 * STILL)
        moves = moves.clamp(0, 1)
        still = (1 - moves * moves * (3 - 2 * moves)) * self.cover
        return torch.lerp(frame, self.source, enlarge(still, side))


def train_layered(
    config: LayeredTraining,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    start_from: Path | None = None,
    perceptual: PerceptualLoss | None = None,
    on_record: Callable[[Record], None] = unheard,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `start_from` gives a new run the weights of an earlier one, be it of layers or of one sheet.
    Without `perceptual` pixels alone are compared.
    """
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = LayeredTask(config, data, place, start_from=start_from, perceptual=perceptual)
        return train(task, folder, options=options, place=place, on_record=on_record)


class LayeredTask(PairTask[LayeredWarping]):
    """How the person of one picture moves to the other, and what hides."""

    config: LayeredTraining

    def __init__(
        self,
        config: LayeredTraining,
        data: Path,
        place: Place,
        *,
        start_from: Path | None,
        perceptual: PerceptualLoss | None,
    ) -> None:
        torch.manual_seed(config.seed)
        network = LayeredWarping(config.model)
        if start_from is not None and PART in read_header(start_from).configs:
            network = load_network(LayeredWarping, start_from, part=PART).float()
        elif start_from is not None:
            sheet = load_network(CompactWarping, start_from, part=SHEET_PART).float()
            network = LayeredWarping.started_from(sheet)
        network = network.requires_grad_(True)
        super().__init__(config, network, data, place, part=PART, perceptual=perceptual)
        self._judged = held_out_layered(self._faces, people=self._kept, most=JUDGED)

    def batches(self, steps: range) -> Iterator[Sample]:
        config = self.config
        dataset = LayeredPairs(
            self._faces, people=self._people, length=self._length, seed=config.seed
        )
        return self._place.batches(dataset, steps, count=config.batch)

    def step(self, batch: Sample, number: int) -> Terms:
        made = LayeredBatch.of(batch, self._place.device)
        corner = torch.rand(2, generator=torch.Generator().manual_seed(number))

        def terms() -> Terms:
            flow, shown = made.corrected(self._descent.networks[PART])
            return layered_terms(
                made,
                flow,
                shown,
                corner=corner,
                perceptual=self._perceptual,
                weights=self.config.weights,
            )

        return self._descent.step(number, terms)

    def judge(self) -> Scores:
        made = (
            LayeredBatch.of(group, self._place.device)
            for group in grouped(self._judged, JUDGED_AT_ONCE)
        )
        return judge_layered(self.weights[PART], made, perceptual=self._perceptual)


def layered_terms(
    batch: LayeredBatch,
    flow: Tensor,
    shown: Tensor,
    *,
    corner: Tensor,
    perceptual: PerceptualLoss | None,
    weights: LayeredWeights,
) -> Terms:
    """Weighted scalars by name, for a corrected flow (B, 2, G, G) and what is shown (B, 1, G, G).

    `corner` (2,) in [0, 1] says where the window is.
    """
    made, target = batch.composed(flow, shown), batch.target
    hidden = ((1 - shown) * batch.cover).mean()
    terms = {
        "pixel": weights.pixel * pyramid_l1(made, target).mean(),
        "flow": weights.flow * masked_l1(flow, batch.teacher, batch.trust).mean(),
        "smooth": weights.smooth * roughness(flow - batch.flow),
        "hidden": weights.hidden * hidden,
    }
    if perceptual is not None:
        whole = perceptual.distance(F.avg_pool2d(made, 2), F.avg_pool2d(target, 2))
        terms["perceptual"] = weights.perceptual * whole.mean()
        side = made.shape[-1] // 2
        top, left = (round(float(share) * side) for share in corner)
        window = (..., slice(top, top + side), slice(left, left + side))
        seen = perceptual.distance(made[window], target[window])
        terms["window"] = weights.window * seen.mean()
    return terms


@torch.no_grad()
def judge_layered(
    network: LayeredWarping, batches: Iterator[LayeredBatch], *, perceptual: PerceptualLoss | None
) -> Scores:
    """Mean distances from the truth, for the `model` and the bare `layers`; lower is better.

    `l1` is of RGB in [0, 1]; the perceptual one is the training's own, so it flatters.
    """
    totals: Scores = {}
    count = 0
    for batch in batches:
        count += len(batch.source)
        for name, image in (
            ("model", batch.composed(*batch.corrected(network))),
            ("layers", batch.composed(batch.flow, torch.ones_like(batch.cover))),
        ):
            scores = {"l1": (image - batch.target).abs().mean(dim=(1, 2, 3))}
            if perceptual is not None:
                scores["perceptual"] = perceptual(image, batch.target)
            into = totals.setdefault(name, {})
            for metric, values in scores.items():
                into[metric] = into.get(metric, 0.0) + float(values.sum())
    return {
        name: {metric: round(total / count, 5) for metric, total in metrics.items()}
        for name, metrics in totals.items()
    }
