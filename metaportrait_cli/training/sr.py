"""`train sr`: compact temporal super-resolution, from prepared runs to weights.

    metaportrait prepare DATA -o runs --runs 3
    metaportrait train sr runs -o run --features mobilenet_v2-b0353104.pth --minutes 60

and the second line again until the steps are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig, Reference, enlarged
from metaportrait_cli.training.data.pairs import kept_aside
from metaportrait_cli.training.data.runs import SHARES, WAYS, RunDataset, Runs, SRSample, run_people
from metaportrait_cli.training.descent import DescentConfig, Terms
from metaportrait_cli.training.loop import DescendingTask, Record, train, unheard
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores
from metaportrait_cli.weights.store import load_network

PART = "compact_sr"
CHARBONNIER = 1e-3
JUDGED, JUDGED_FRAMES = 8, 5


@dataclass(frozen=True)
class SRWeights:
    """Weights of the terms; all are means over frames and pixels."""

    pixel: float = 1.0
    perceptual: float = 0.8
    """Its values are about six times those of the pixels"""
    steady: float = 2.0
    """For the change from frame to frame, against the truth's"""


@dataclass(frozen=True)
class SRTraining(DescentConfig):
    """What is trained and how; a run can only be continued with the same."""

    model: CompactSRConfig = field(default_factory=CompactSRConfig)
    weights: SRWeights = field(default_factory=SRWeights)
    batch: int = 4
    patch: int = 48
    """Side of the windows in small pixels"""
    frames: int = 5
    clip_norm: float = 0.5
    with_reference: float = 0.5
    """Share of the samples with a reference: it must work without one as well"""
    held_out: float = 0.08


def train_sr(
    config: SRTraining,
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
        task = SRTask(config, data, place, start_from=start_from, perceptual=perceptual)
        return train(task, folder, options=options, place=place, on_record=on_record)


class SRTask(DescendingTask[list[SRSample], CompactSR]):
    """Windows of a few frames, degraded, and as they were."""

    architecture = "compact_sr"
    config: SRTraining

    def __init__(
        self,
        config: SRTraining,
        data: Path,
        place: Place,
        *,
        start_from: Path | None,
        perceptual: PerceptualLoss | None,
    ) -> None:
        torch.manual_seed(config.seed)
        network = CompactSR(config.model)
        if start_from is not None:
            earlier = load_network(CompactSR, start_from, part=PART)
            network.load_state_dict(earlier.state_dict())
        super().__init__(config, {PART: network}, place, perceptual=perceptual)
        self._data = data.name
        self._runs = Runs.load(data)
        self._people, self._kept = kept_aside(run_people(self._runs), share=config.held_out)
        self._judged = judged_samples(self._runs, people=self._kept, config=config)

    def batches(self, steps: range) -> Iterator[list[SRSample]]:
        config = self.config
        dataset = RunDataset(
            self._runs,
            people=self._people,
            length=config.steps * config.batch * self._place.world,
            seed=config.seed,
            patch=config.patch,
            frames=config.frames,
            with_reference=config.with_reference,
        )
        return self._place.batches(dataset, steps, count=config.batch, collate=list)

    def step(self, batch: list[SRSample], number: int) -> Terms:
        samples = [_on(sample, self._place.device) for sample in batch]
        network = self._descent.networks[PART]

        def terms() -> Terms:
            # Clips have no batch axis: time is theirs, and one more would cost every block a
            # reshape.
            results = [network(sample.frames, sample.reference) for sample in samples]
            return sr_terms(
                torch.stack(results),
                torch.stack([sample.truth for sample in samples]),
                perceptual=self._perceptual,
                weights=self.config.weights,
            )

        return self._descent.step(number, terms)

    def judge(self) -> Scores:
        network = self.weights[PART]
        return judge_sr(
            network, self._judged, perceptual=self._perceptual, device=self._place.device
        )

    def merit(self, scores: Scores) -> float:
        return scores["alone"]["l1"] + scores["alone"].get("perceptual", 0.0)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "data": {
                "folder": self._data,
                "pictures": len(self._runs.images),
                "runs": len(self._runs.starts),
                "clips": len(self._runs.clips),
                "people": len(self._people) + len(self._kept),
                "held_out": self._kept,
            },
            **super().facts,
        }


def sr_terms(
    result: Tensor, truth: Tensor, *, perceptual: PerceptualLoss | None, weights: SRWeights
) -> Terms:
    """Weighted scalars by name, of clips (B, T, 3, H, W) in [0, 1].

    Steadiness is the paper's short-term term without its optical flow: what changes from one frame
    to the next must be what changes in the truth. A flow would only undo motion that both share.
    """
    difference = result - truth
    terms = {"pixel": weights.pixel * _charbonnier(difference)}
    if truth.shape[1] > 1:
        change = difference[:, 1:] - difference[:, :-1]
        terms["steady"] = weights.steady * _charbonnier(change)
    if perceptual is not None:
        distance = perceptual.distance(result.flatten(0, 1), truth.flatten(0, 1))
        terms["perceptual"] = weights.perceptual * distance.mean()
    return terms


def judged_samples(runs: Runs, *, people: Sequence[str], config: SRTraining) -> list[SRSample]:
    """Windows of held-out people, all with a reference where there is one, nothing moved: pictures
    of the renderer differ from their truth by more than detail."""
    if not people:
        return []
    dataset = RunDataset(
        runs,
        people=people,
        length=JUDGED,
        seed=config.seed + 1,
        patch=min(2 * config.patch, runs.low.shape[1]),
        frames=JUDGED_FRAMES,
        with_reference=1.0,
        ways=[share * (way != "moved") for way, share in zip(WAYS, SHARES, strict=True)],
    )
    return [dataset[number] for number in range(JUDGED)]


@torch.no_grad()
def judge_sr(
    model: CompactSR,
    samples: Iterable[SRSample],
    *,
    perceptual: PerceptualLoss | None,
    device: torch.device,
) -> Scores:
    """Means over the samples for `bicubic`, each frame on its own (`single`), the clip without
    (`alone`) and with (`referred`) its reference. Lower is better.

    `l1` of RGB in [0, 1]; `steady`, of the frame-to-frame change against the truth's; `restless`,
    the frame-to-frame change itself relative to bicubic's; `perceptual`, the training's own.
    """
    totals: Scores = {}
    count = 0
    for given in samples:
        sample = _on(given, device)
        count += 1
        plain = enlarged(sample.frames)
        results = {
            "bicubic": plain,
            "single": torch.cat([model(frame) for frame in sample.frames.split(1)]),
            "alone": model(sample.frames),
            "referred": model(sample.frames, sample.reference),
        }
        for name, unlimited in results.items():
            image = unlimited.clamp(0, 1)
            difference = image - sample.truth
            scores = {
                "l1": difference.abs().mean(),
                "steady": difference.diff(dim=0).abs().mean(),
                "restless": image.diff(dim=0).abs().mean() / plain.diff(dim=0).abs().mean(),
            }
            if perceptual is not None:
                scores["perceptual"] = perceptual.distance(image, sample.truth).mean()
            into = totals.setdefault(name, {})
            for metric, value in scores.items():
                into[metric] = into.get(metric, 0.0) + float(value)
    return {
        name: {metric: round(value / count, 5) for metric, value in metrics.items()}
        for name, metrics in totals.items()
    }


def _charbonnier(difference: Tensor) -> Tensor:
    return torch.sqrt(difference.float().square() + CHARBONNIER**2).mean()


def _on(sample: SRSample, device: torch.device) -> SRSample:
    reference = sample.reference
    if reference is not None:
        reference = Reference(reference.image.to(device), reference.valid.to(device))
    return SRSample(sample.frames.to(device), sample.truth.to(device), reference)
