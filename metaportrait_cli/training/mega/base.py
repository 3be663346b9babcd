"""`train mega`: the base model of MegaPortraits (Drobyshev et al., ACM MM 2022, section 3.1).

    metaportrait prepare DATA -o prepared --size 256
    metaportrait train mega prepared -o run --config lite --minutes 60

A source and a driver of one video: the driver is painted from the source, the driver's pose, and
what its face expresses. A second pair, of somebody else, keeps looks out of the expressions: the
other source under this driver must express the same.

The paper compares by VGG19 and VGGFace. What stands for them is the MobileNetV2 distance of the
other trainings, of the whole picture and around the face, and one of pixels. Only the person is
painted, and matted: pictures come without their backgrounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.networks.mega.base import BaseModel
from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.networks.mega.critic import MegaCritic, MegaCriticConfig
from metaportrait_cli.networks.network import Network
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.training.data.pairs import Faces, kept_aside
from metaportrait_cli.training.descent import Descent, DescentConfig, Terms
from metaportrait_cli.training.loop import Record, Task, train, unheard
from metaportrait_cli.training.losses import (
    critic_hinge,
    feature_matching,
    painter_hinge,
    pyramid_l1,
)
from metaportrait_cli.training.mega.gaze import EyeLoss
from metaportrait_cli.training.mega.losses import cosine_loss
from metaportrait_cli.training.mega.mattes import mattes_of
from metaportrait_cli.training.mega.samples import (
    MegaDataset,
    MegaSample,
    Subjects,
    judged_samples,
)
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores, Stateful
from metaportrait_cli.weights.architectures import MEGA

BASE, CRITIC = "base", "critic"
JUDGED = 48
"""Pictures of held-out people"""


@dataclass(frozen=True)
class MegaWeights:
    """Weights of the terms: pixel, perceptual, face and matte are ours, the others the paper's."""

    pixel: float = 10.0
    perceptual: float = 20.0
    """w_IN"""
    face: float = 4.0
    gaze: float = 5.0
    matte: float = 5.0
    adversarial: float = 1.0
    features: float = 40.0
    """w_FM"""
    cosine: float = 2.0
    """w_cos; without it nothing of the second pair is painted"""


@dataclass(frozen=True)
class AgainstCritic(DescentConfig):
    """How both stages are trained, the paper's way."""

    critic: MegaCriticConfig = field(default_factory=MegaCriticConfig)
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    decay: float = 1e-2
    """AdamW's weight decay"""
    average: float = 0.999


@dataclass(frozen=True)
class MegaTraining(AgainstCritic):
    """What is trained and how; a run can only be continued with the same."""

    model: MegaConfig = field(default_factory=MegaConfig.paper)
    weights: MegaWeights = field(default_factory=MegaWeights)
    steps: int = 300_000

    @classmethod
    def paper(cls) -> MegaTraining:
        """At 512²; the paper took 15,000 videos of VoxCeleb2HQ."""
        return cls()

    @classmethod
    def lite(cls) -> MegaTraining:
        """At 256², narrow: for one GPU and a few hundred clips."""
        return cls(
            model=MegaConfig.lite(),
            critic=MegaCriticConfig.lite(),
            steps=150_000,
            batch=8,
        )

    def without_cosine(self) -> MegaTraining:
        """The ablation: nothing keeps looks out of expressions but the driver's disguise."""
        return replace(self, weights=replace(self.weights, cosine=0.0))


def train_mega(
    config: MegaTraining,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    perceptual: PerceptualLoss | None = None,
    eyes: EyeLoss | None = None,
    on_record: Callable[[Record], None] = unheard,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    Without `perceptual` or `eyes` their terms are left out.
    """
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = MegaTask(
            config, data, place, perceptual=perceptual, eyes=eyes, on_progress=on_progress
        )
        return train(task, folder, options=options, place=place, on_record=on_record)


@dataclass(frozen=True)
class Painted:
    """One pass of the base model over a batch."""

    image: Tensor
    """x_{s->d} (B, 3, S, S), times its matte"""
    matte: Tensor
    """(B, 1, S, S)"""
    z: Tensor
    """z_d (B, N)"""
    expressions: tuple[Tensor, ...] = ()
    """z_{s->d} and z_{s*->d}, read from what was painted"""
    z_other: Tensor | None = None
    """z_d*"""


class MegaTask(Task[MegaSample]):
    """Pairs of pictures of many people's videos."""

    architecture = MEGA

    def __init__(
        self,
        config: MegaTraining,
        data: Path,
        place: Place,
        *,
        perceptual: PerceptualLoss | None,
        eyes: EyeLoss | None,
        on_progress: Progress = silent,
    ) -> None:
        if place.world > 1:
            raise UsageError("train mega runs in one process; start it without torchrun")
        self.config = config
        self._place = place
        self._perceptual = perceptual.to(place.device) if perceptual is not None else None
        self._eyes = eyes.to(place.device) if eyes is not None else None
        self._data = data.name
        faces = Faces.load(data)
        mattes = mattes_of(faces, data, on_progress=on_progress)
        self._subjects = Subjects(faces, mattes, config.model)
        self._names, self._kept = kept_aside(
            (clip.identity for clip in faces.clips), share=config.held_out
        )
        self._samples = MegaDataset(
            self._subjects,
            names=self._names,
            length=config.steps * config.batch,
            seed=config.seed,
        )
        if config.weights.cosine and self._samples.persons < 2:
            raise MediaError(f"{data}: one person; the cosine loss needs clips of two people")
        torch.manual_seed(config.seed)
        self._painter: Descent[BaseModel] = Descent(
            {BASE: BaseModel(config.model)}, config, place, decay=config.decay
        )
        self._critic = Descent(
            {CRITIC: MegaCritic(config.critic)}, config, place, decay=config.decay
        )
        self._judged = judged_samples(self._subjects, names=self._kept, most=JUDGED)

    @property
    def state(self) -> Stateful:
        critic = {f"critic_{name}": part for name, part in self._critic.state.items()}
        return {**self._painter.state, **critic}

    @property
    def weights(self) -> Mapping[str, Network]:
        return self._painter.averaged

    def batches(self, steps: range) -> Iterator[MegaSample]:
        return self._place.batches(
            self._samples, steps, count=self.config.batch, collate=MegaSample.batch
        )

    def step(self, batch: MegaSample, number: int) -> Terms:
        batch = batch.to(self._place.device)
        target = unit(batch.driver)
        critic = self._critic.networks[CRITIC]
        kept: list[Tensor] = []

        def painting() -> Terms:
            weights = self.config.weights
            done = painted(self._painter.networks[BASE], batch, number, cycle=weights.cosine > 0)
            kept.append(done.image.detach())
            terms = content_terms(
                done, batch, perceptual=self._perceptual, eyes=self._eyes, weights=weights
            )
            with torch.no_grad():
                real = critic(target)
            seen = critic(done.image)
            terms["adversarial"] = weights.adversarial * painter_hinge(seen)
            terms["features"] = weights.features * feature_matching(seen, real)
            if done.z_other is not None:
                terms["cosine"] = weights.cosine * cosine_loss(
                    done.expressions, done.z, done.z_other
                )
            return terms

        def judging() -> Terms:
            return {"critic": critic_hinge(critic(target), critic(kept[0]))}

        critic.requires_grad_(False)
        terms = self._painter.step(number, painting)
        critic.requires_grad_(True)
        return terms | {"critic": self._critic.step(number, judging)["critic"]}

    def judge(self) -> Scores:
        if not self._judged:
            return {}
        return judge_mega(
            self._painter.averaged[BASE],
            self._judged,
            perceptual=self._perceptual,
            device=self._place.device,
        )

    def merit(self, scores: Scores) -> float:
        return scores["painted"]["l1"] + scores["painted"].get("perceptual", 0.0)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "data": {
                "folder": self._data,
                "pictures": len(self._subjects.faces.images),
                "people": len(self._names) + len(self._kept),
                "held_out": self._kept,
            },
            "perceptual_loss": self._perceptual is not None,
            "gaze_loss": self._eyes is not None,
        }


def unit(pictures: Tensor) -> Tensor:
    """Bytes as the networks have them, in [0, 1]."""
    return pictures.float() / 255


def painted(base: BaseModel, batch: MegaSample, number: int, *, cycle: bool) -> Painted:
    """x_{s->d} of a batch, and with `cycle` the expressions that the cosine loss compares."""
    z = base.expression_encoder(unit(batch.look))  # z_d
    image, matte = shown(base, batch.source, batch.source_head, batch.driver_head, z)
    if not cycle:
        return Painted(image, matte, z)
    # Half of the time the other picture is posed as its own driver: pose must not be read from z.
    turns = torch.arange(len(z), device=z.device) + number
    head = torch.where((turns % 2 == 0)[:, None, None], batch.driver_head, batch.other_head)
    crossed, _ = shown(base, batch.other_source, batch.other_source_head, head, z)  # x_{s*->d}
    return Painted(
        image,
        matte,
        z.float(),
        expressions=(
            base.expression(image, batch.driver_head).float(),
            base.expression(crossed, head).float(),
        ),
        z_other=base.expression_encoder(unit(batch.other_look)).float(),
    )


def shown(
    base: BaseModel, source: Tensor, source_head: Tensor, driver_head: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, S, S) times their mattes, and those, (B, 1, S, S)."""
    source = unit(source)
    seen = base.appearance(source, source_head, base.expression(source, source_head))
    colours, matte = base.drive(seen, driver_head, z).float().split([3, 1], dim=1)
    return colours * matte, matte


def content_terms(
    done: Painted,
    batch: MegaSample,
    *,
    perceptual: PerceptualLoss | None,
    eyes: EyeLoss | None,
    weights: MegaWeights,
) -> Terms:
    """L_per (equation 4) and the matte's: weighted scalars by name."""
    target, matte = unit(batch.driver), unit(batch.matte)
    terms = {
        "pixel": weights.pixel * pyramid_l1(done.image, target).mean(),
        "matte": weights.matte * F.l1_loss(done.matte, matte),
    }
    if perceptual is not None:
        terms["perceptual"] = weights.perceptual * perceptual(done.image, target).mean()
        face = perceptual.in_face(done.image, target, batch.points)
        terms["face"] = weights.face * face.mean()
    if eyes is not None:
        terms["gaze"] = weights.gaze * eyes(done.image, target, batch.points, unit(batch.eyes))
    return terms


@torch.no_grad()
def judge_mega(
    base: BaseModel,
    samples: Sequence[MegaSample],
    *,
    perceptual: PerceptualLoss | None,
    device: torch.device,
) -> Scores:
    """Mean distances from the truth of what is `painted`, and of the source as it is (`copied`).

    `l1` is of RGB in [0, 1] without background; the perceptual one is the training's own, so it
    flatters.
    """
    totals: Scores = {}
    for sample in samples:
        batch = MegaSample.batch([sample]).to(device)
        target, done = unit(batch.driver), painted(base, batch, 0, cycle=False)
        for name, image in {"copied": unit(batch.source), "painted": done.image}.items():
            scores = {"l1": (image - target).abs().mean()}
            if perceptual is not None:
                scores["perceptual"] = perceptual(image, target).mean()
            into = totals.setdefault(name, {})
            for metric, value in scores.items():
                into[metric] = into.get(metric, 0.0) + float(value) / len(samples)
    return {
        name: {metric: round(value, 5) for metric, value in metrics.items()}
        for name, metrics in totals.items()
    }
