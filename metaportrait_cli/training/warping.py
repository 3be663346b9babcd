"""`train warping`: the network that corrects the analytic flow, from prepared data to weights.

    metaportrait prepare DATA -o prepared
    metaportrait train warping prepared -o run --features mobilenet_v2-b0353104.pth --minutes 10

and the second line again until the steps are done; on several GPUs of one machine the same under
`torchrun --standalone --nproc-per-node N --no-python metaportrait train warping …`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaportrait_cli.networks.compact_blocks import enlarge, shrink, warp
from metaportrait_cli.networks.compact_warping import (
    CompactConditions,
    CompactWarping,
    CompactWarpingConfig,
)
from metaportrait_cli.training.data.pairs import (
    Faces,
    PairDataset,
    Sample,
    facts_of,
    held_out_samples,
    kept_aside,
)
from metaportrait_cli.training.descent import DescentConfig, NetworkT, Terms
from metaportrait_cli.training.loop import DescendingTask, Record, train, unheard
from metaportrait_cli.training.losses import masked_l1, pyramid_l1
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores
from metaportrait_cli.weights.store import load_network

PART = "warping"
JUDGED = 96
"""Pairs of held-out people"""
JUDGED_AT_ONCE = 8
FLOW_GRADIENT_UNIT = 100.0  # a hundredth of half a side a cell counts as one


@dataclass(frozen=True)
class WarpingWeights:
    """Weights of the terms."""

    pixel: float = 1.0
    perceptual: float = 3.0
    flow: float = 10.0
    """For the distance to the teacher's flow, where it can be trusted"""
    smooth: float = 0.02
    """For the gradient of the learnt part of the flow"""


@dataclass(frozen=True)
class WarpingTraining(DescentConfig):
    """What is trained and how; a run can only be continued with the same."""

    model: CompactWarpingConfig = field(default_factory=CompactWarpingConfig)
    weights: WarpingWeights = field(default_factory=WarpingWeights)
    size: int = 128
    """Side of the pictures that are compared."""
    steps: int = 10_000
    lr: float = 8e-4
    betas: tuple[float, float] = (0.5, 0.999)  # the paper's training code
    warm_up: int = 500
    plateau: float = 0.6
    average: float = 0.999


@dataclass(frozen=True)
class WarpingBatch:
    """Samples as the network takes them, pictures and maps in [0, 1]; see `PairDataset`."""

    source: Tensor
    target: Tensor
    source_lines: Tensor
    driven: CompactConditions
    teacher: Tensor
    trust: Tensor
    points: Tensor

    @classmethod
    def of(cls, sample: Sample, device: torch.device, *, size: int) -> WarpingBatch:
        """Collated samples, (B, …) each, on the device: pictures of `size`, maps of half of it."""
        moved = {key: value.to(device, non_blocking=True) for key, value in sample.items()}
        share = size / moved["source"].shape[-1]
        sizes = {"source": size, "target": size}
        small = {
            key: shrink(
                value.float() / 255 if value.dtype == torch.uint8 else value,
                sizes.get(key, size // 2),
            )
            for key, value in moved.items()
            if key != "points"
        }
        return cls(
            source=small["source"],
            target=small["target"],
            source_lines=small["source_lines"],
            driven=CompactConditions(flow=small["flow"], lines=small["lines"], gap=small["gap"]),
            teacher=small["teacher"],
            trust=small["trust"],
            points=moved["points"] * share,
        )

    def under(self, flow: Tensor) -> Tensor:
        """The source moved by a flow (B, 2, G, G): (B, 3, S, S)."""
        return warp(self.source, enlarge(flow, self.source.shape[-1]))


def train_warping(
    config: WarpingTraining,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    start_from: Path | None = None,
    perceptual: PerceptualLoss | None = None,
    on_record: Callable[[Record], None] = unheard,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `start_from` gives a new run the weights of an earlier one. Without `perceptual` pixels alone
    are compared.
    """
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = WarpingTask(config, data, place, start_from=start_from, perceptual=perceptual)
        return train(task, folder, options=options, place=place, on_record=on_record)


class PairTask(DescendingTask[Sample, NetworkT]):
    """Pairs of pictures of one clip; what moves one to the other is learnt."""

    architecture = "compact"

    def __init__(
        self,
        config: DescentConfig,
        network: NetworkT,
        data: Path,
        place: Place,
        *,
        part: str,
        perceptual: PerceptualLoss | None,
    ) -> None:
        """`part` is the network's name in files of weights."""
        super().__init__(config, {part: network}, place, perceptual=perceptual)
        self._data = data.name
        self._faces = Faces.load(data)
        self._people, self._kept = kept_aside(
            (clip.identity for clip in self._faces.clips), share=config.held_out
        )

    @property
    def _length(self) -> int:
        """Samples of the whole training."""
        return self.config.steps * self.config.batch * self._place.world

    def merit(self, scores: Scores) -> float:
        return scores["model"]["l1"] + scores["model"].get("perceptual", 0.0)

    @property
    def facts(self) -> Mapping[str, Any]:
        data = facts_of(self._faces, self._data, people=self._people, kept=self._kept)
        return {"data": data, **super().facts}


class WarpingTask(PairTask[CompactWarping]):
    """The flow from one picture to the other."""

    config: WarpingTraining

    def __init__(
        self,
        config: WarpingTraining,
        data: Path,
        place: Place,
        *,
        start_from: Path | None,
        perceptual: PerceptualLoss | None,
    ) -> None:
        torch.manual_seed(config.seed)
        network = CompactWarping(config.model)
        if start_from is not None:
            earlier = load_network(CompactWarping, start_from, part=PART)
            network.load_state_dict(earlier.state_dict())
        super().__init__(config, network, data, place, part=PART, perceptual=perceptual)
        self._corrected = place.compiled(_Corrected(self._descent.networks[PART]))
        self._judged = held_out_samples(self._faces, people=self._kept, most=JUDGED)

    def batches(self, steps: range) -> Iterator[Sample]:
        config = self.config
        dataset = PairDataset(
            self._faces, people=self._people, length=self._length, seed=config.seed
        )
        return self._place.batches(dataset, steps, count=config.batch)

    def step(self, batch: Sample, number: int) -> Terms:
        made = WarpingBatch.of(batch, self._place.device, size=self.config.size)

        def terms() -> Terms:
            flow = self._corrected(made.source, made.source_lines, made.driven)
            return warping_terms(
                made, flow, perceptual=self._perceptual, weights=self.config.weights
            )

        return self._descent.step(number, terms)

    def judge(self) -> Scores:
        made = (
            WarpingBatch.of(group, self._place.device, size=self.config.size)
            for group in grouped(self._judged, JUDGED_AT_ONCE)
        )
        return judge_warping(self.weights[PART], made, perceptual=self._perceptual)


class _Corrected(nn.Module):
    """Encoding and correcting as one call, so that the compiler sees the whole."""

    def __init__(self, network: CompactWarping) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor, lines: Tensor, driven: CompactConditions) -> Tensor:
        return self.network(self.network.encode(source, lines), driven)


def warping_terms(
    batch: WarpingBatch,
    flow: Tensor,
    *,
    perceptual: PerceptualLoss | None,
    weights: WarpingWeights,
) -> Terms:
    """Weighted scalars by name, for a corrected flow (B, 2, G, G)."""
    moved = batch.under(flow)
    terms = {
        "pixel": weights.pixel * pyramid_l1(moved, batch.target).mean(),
        "flow": weights.flow * masked_l1(flow, batch.teacher, batch.trust).mean(),
        "smooth": weights.smooth * roughness(flow - batch.driven.flow),
    }
    if perceptual is not None:
        terms["perceptual"] = weights.perceptual * perceptual(moved, batch.target).mean()
    return terms


def roughness(flow: Tensor) -> Tensor:
    """Mean absolute gradient of a flow (B, 2, G, G), in hundredths of half a side per cell."""
    along_x = (flow[..., :, 1:] - flow[..., :, :-1]).abs().mean()
    along_y = (flow[..., 1:, :] - flow[..., :-1, :]).abs().mean()
    return FLOW_GRADIENT_UNIT * (along_x + along_y)


@torch.no_grad()
def judge_warping(
    network: CompactWarping, batches: Iterator[WarpingBatch], *, perceptual: PerceptualLoss | None
) -> Scores:
    """Mean distances from the truth, for the `model` and the `analytic` warp; lower is better.

    `l1` is of RGB in [0, 1]; the perceptual ones are the training's own, so they flatter.
    """
    totals: Scores = {}
    count = 0
    for batch in batches:
        count += len(batch.source)
        flow = network(network.encode(batch.source, batch.source_lines), batch.driven)
        for name, image in (
            ("model", batch.under(flow)),
            ("analytic", batch.under(batch.driven.flow)),
        ):
            scores = {"l1": (image - batch.target).abs().mean(dim=(1, 2, 3))}
            if perceptual is not None:
                scores["perceptual"] = perceptual(image, batch.target)
                scores["face_perceptual"] = perceptual.in_face(image, batch.target, batch.points)
            into = totals.setdefault(name, {})
            for metric, values in scores.items():
                into[metric] = into.get(metric, 0.0) + float(values.sum())
    return {
        name: {metric: round(total / count, 5) for metric, total in metrics.items()}
        for name, metrics in totals.items()
    }


def grouped(samples: Sequence[Sample], count: int) -> Iterator[Sample]:
    """Samples in order, `count` at a time, collated."""
    for start in range(0, len(samples), count):
        group = samples[start : start + count]
        yield {key: torch.stack([sample[key] for sample in group]) for key in group[0]}
