"""Judging a model by people it was not trained on: self-reconstruction from one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metaportrait_cli.face.identity import cut_chips
from metaportrait_cli.networks.compact import CompactModel, Driving
from metaportrait_cli.networks.compact_blocks import enlarge, shrink, warp
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.training.data.pairs import Sample
from metaportrait_cli.training.losses import masked_l1
from metaportrait_cli.training.perceptual import PerceptualLoss

METRICS = ("l1", "mouth_l1", "eyes_l1", "perceptual", "face_perceptual")


@dataclass(frozen=True)
class Batch:
    """Samples as the model takes them: pictures and maps float32 in [0, 1]; see `PairDataset`."""

    source: Tensor
    target: Tensor
    source_lines: Tensor
    driving: Driving
    teacher: Tensor
    trust: Tensor
    mouth: Tensor
    eyes: Tensor
    points: Tensor
    source_chip: Tensor
    chip: Tensor
    paired: Tensor

    @classmethod
    def of(cls, sample: Sample, device: torch.device, *, size: int) -> Batch:
        """Collated samples, (B, …) each, on the device, shrunk to pictures of `size`."""
        moved = {key: value.to(device, non_blocking=True) for key, value in sample.items()}
        share = size / moved["source"].shape[-1]
        # The condition maps have a size of their own; the model takes half its pictures'.
        sizes = dict.fromkeys(("source_lines", "lines", "gap", "trust"), size // 2)
        unit = {
            key: shrink(value.float() / 255, sizes.get(key, size))
            for key, value in moved.items()
            if value.dtype == torch.uint8
        }
        return cls(
            source=unit["source"],
            target=unit["target"],
            source_lines=unit["source_lines"],
            driving=Driving(
                flow=shrink(moved["flow"], size // 2),
                lines=unit["lines"],
                gap=unit["gap"],
            ),
            teacher=shrink(moved["teacher"], size // 2),
            trust=unit["trust"],
            mouth=unit["mouth"],
            eyes=unit["eyes"],
            points=moved["points"] * share,
            source_chip=moved["source_chip"] * share,
            chip=moved["chip"] * share,
            paired=moved["paired"],
        )


def embedding(batch: Batch, network: IdentityNetwork | None, width: int) -> Tensor:
    """Identity of the sources (B, width): zeros where no network is at hand."""
    if network is None:
        return batch.source.new_zeros(len(batch.source), width)
    with torch.no_grad():
        return network(cut_chips(batch.source, batch.source_chip))


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

    Lower is better. L1 is of RGB in [0, 1]; the perceptual ones are the training's own, so they
    flatter.
    """
    was_training = model.training
    model.eval()
    totals: dict[str, dict[str, float]] = {}
    for batch in batches(samples, device=device, count=batch_size, size=model.config.image_size):
        known = embedding(batch, identity, model.config.identity_dim)
        features = model.encode(batch.source, batch.source_lines, known)
        picture, _ = model(features, batch.driving)
        images = {"model": picture.image, "warped": picture.warped, "analytic": analytic(batch)}
        for name, unlimited in images.items():
            image = unlimited.clamp(0, 1)
            scores = {
                "l1": (image - batch.target).abs().mean(dim=(1, 2, 3)),
                "mouth_l1": masked_l1(image, batch.target, batch.mouth),
                "eyes_l1": masked_l1(image, batch.target, batch.eyes),
            }
            if perceptual is not None:
                scores["perceptual"] = perceptual([image], batch.target)[0]
                scores["face_perceptual"] = perceptual.in_face(image, batch.target, batch.points)
            into = totals.setdefault(name, {})
            for metric, values in scores.items():
                into[metric] = into.get(metric, 0.0) + float(values.sum()) / len(samples)
    model.train(was_training)
    return totals


def batches(
    samples: Sequence[Sample], *, device: torch.device, count: int, size: int
) -> Iterator[Batch]:
    """Samples in order, `count` at a time, shrunk to pictures of `size`."""
    for start in range(0, len(samples), count):
        group = samples[start : start + count]
        stacked = {key: torch.stack([sample[key] for sample in group]) for key in group[0]}
        yield Batch.of(stacked, device, size=size)
