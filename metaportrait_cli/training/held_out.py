"""Judging a model by people it was not trained on: self-reconstruction from one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metaportrait_cli.networks.compact import CompactModel, Driving
from metaportrait_cli.networks.compact_blocks import enlarge, warp
from metaportrait_cli.training.dataset import Sample
from metaportrait_cli.training.losses import IdentityNetwork, masked_l1
from metaportrait_cli.training.perceptual import PerceptualLoss

METRICS = ("l1", "mouth_l1", "eyes_l1", "perceptual")


@dataclass(frozen=True)
class Batch:
    """Samples as the model takes them: pictures and maps float32 in [0, 1]; see `PairDataset`."""

    source: Tensor
    target: Tensor
    source_lines: Tensor
    driving: Driving
    mouth: Tensor
    eyes: Tensor
    source_points: Tensor
    points: Tensor
    paired: Tensor

    @classmethod
    def of(cls, sample: Sample, device: torch.device) -> Batch:
        """Collated samples, (B, …) each, on the device."""
        moved = {key: value.to(device, non_blocking=True) for key, value in sample.items()}
        unit = {key: moved[key].float() / 255 for key in moved if moved[key].dtype == torch.uint8}
        return cls(
            source=unit["source"],
            target=unit["target"],
            source_lines=unit["source_lines"],
            driving=Driving(flow=moved["flow"], lines=unit["lines"], gap=unit["gap"]),
            mouth=unit["mouth"],
            eyes=unit["eyes"],
            source_points=moved["source_points"],
            points=moved["points"],
            paired=moved["paired"],
        )


def embedding(batch: Batch, network: IdentityNetwork | None, width: int) -> Tensor:
    """Identity of the sources (B, width): zeros where no network is at hand."""
    if network is None:
        return batch.source.new_zeros(len(batch.source), width)
    with torch.no_grad():
        return network(batch.source, batch.source_points)


def analytic(batch: Batch) -> Tensor:
    """The source under the prior flow alone, (B, 3, S, S)."""
    return warp(batch.source, enlarge(batch.driving.flow, batch.source.shape[-1]))


@torch.no_grad()
def judge(
    model: CompactModel,
    samples: Sequence[Sample],
    *,
    device: torch.device,
    perceptual: PerceptualLoss | None,
    identity: IdentityNetwork | None,
    batch_size: int = 8,
) -> dict[str, dict[str, float]]:
    """Means over the samples of `METRICS`, for `model`, its `warped` source and `analytic` warp.

    Lower is better. L1 is of RGB in [0, 1]; `perceptual` is the training's own, so it flatters.
    """
    was_training = model.training
    model.eval()
    totals: dict[str, dict[str, float]] = {}
    for batch in batches(samples, device=device, size=batch_size):
        known = embedding(batch, identity, model.config.identity_dim)
        features = model.encode(batch.source, batch.source_lines, known)
        picture, _ = model(features, batch.driving)
        images = {"model": picture.image, "warped": picture.warped, "analytic": analytic(batch)}
        for name, image in images.items():
            image = image.clamp(0, 1)
            scores = {
                "l1": (image - batch.target).abs().mean(dim=(1, 2, 3)),
                "mouth_l1": masked_l1(image, batch.target, batch.mouth),
                "eyes_l1": masked_l1(image, batch.target, batch.eyes),
            }
            if perceptual is not None:
                scores["perceptual"] = perceptual([image], batch.target)[0]
            into = totals.setdefault(name, {})
            for metric, values in scores.items():
                into[metric] = into.get(metric, 0.0) + float(values.sum()) / len(samples)
    model.train(was_training)
    return totals


def batches(samples: Sequence[Sample], *, device: torch.device, size: int) -> Iterator[Batch]:
    """Samples in order, collated."""
    for start in range(0, len(samples), size):
        group = samples[start : start + size]
        yield Batch.of({key: torch.stack([s[key] for s in group]) for key in group[0]}, device)
