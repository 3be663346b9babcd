"""`train mega-hr`: the high-resolution stage of MegaPortraits (section 3.2).

    metaportrait prepare PHOTOS -o photos --size 1024
    metaportrait train mega-hr run/last.safetensors photos -o high

The base model stays as it is. Photos show a person once: half of the learning has a truth (source
and driver are one photo, shifted and tilted two ways) and half has none: the source under another
person's motion must look like photos do, and shrunk be what the base model painted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.mega.base import BaseModel
from metaportrait_cli.networks.mega.blocks import fold
from metaportrait_cli.networks.mega.critic import MegaCritic, MegaCriticConfig
from metaportrait_cli.networks.mega.enhancer import MegaEnhancer, MegaEnhancerConfig
from metaportrait_cli.networks.network import Network
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.mega.pose import aligned_face, head_matrices
from metaportrait_cli.training.data.pairs import Faces, is_held_out, kept_aside
from metaportrait_cli.training.descent import Descent, Terms
from metaportrait_cli.training.loop import Record, Task, train, unheard
from metaportrait_cli.training.losses import critic_hinge, feature_matching, painter_hinge
from metaportrait_cli.training.mega.base import BASE, CRITIC, AgainstCritic, unit
from metaportrait_cli.training.mega.mattes import mattes_of
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores, Stateful
from metaportrait_cli.weights.architectures import MEGA
from metaportrait_cli.weights.download import sha256_of
from metaportrait_cli.weights.store import load_network

ENHANCER = "enhancer"
TILT, ZOOM, MOVE = 12.0, 0.1, 0.06
"""By how much the two ways to see one photo differ: degrees, size, and share of its side"""
SHRUNK = 4
"""L_cyc compares at a quarter of the base model's side: an eighth of the enhancer's"""
JUDGED = 24


@dataclass(frozen=True)
class HighWeights:
    """Weights of the terms, the paper's (equation 10)."""

    mae: float = 100.0
    adversarial: float = 1.0
    features: float = 100.0
    adversarial_other: float = 1.0
    """w_adv_c, of what has no truth"""
    cycle: float = 10.0
    """w_cyc_c"""


@dataclass(frozen=True)
class MegaHighTraining(AgainstCritic):
    """What is trained and how; a run can only be continued with the same."""

    base: str = ""
    """sha256 of the base model's file"""
    model: MegaEnhancerConfig = field(default_factory=MegaEnhancerConfig.paper)
    weights: HighWeights = field(default_factory=HighWeights)
    steps: int = 50_000

    @classmethod
    def paper(cls) -> MegaHighTraining:
        """To 1024²; the paper took 20,000 photos of FFHQ."""
        return cls()

    @classmethod
    def lite(cls) -> MegaHighTraining:
        """To 512², narrow."""
        return cls(
            model=MegaEnhancerConfig.lite(),
            critic=MegaCriticConfig.lite(),
            batch=8,
        )


@dataclass(frozen=True)
class HighSample:
    """One sample, or a batch. S is the base model's side. Pictures are uint8 RGB times mattes."""

    source: Tensor
    """x_LR (…, 3, S, S)"""
    source_head: Tensor
    """(…, 4, 4)"""
    look: Tensor
    """(…, 3, L, L) of the same photo, seen the other way"""
    head: Tensor
    target: Tensor
    """x_HR of that (…, 3, 2 S, 2 S)"""
    matte: Tensor
    """(…, 1, 2 S, 2 S)"""
    other_look: Tensor
    """Of another person, x_c"""
    other_head: Tensor

    @classmethod
    def batch(cls, samples: Sequence[Self]) -> Self:
        """Several, stacked."""
        names = [each.name for each in fields(cls)]
        return cls(**{name: torch.stack([getattr(s, name) for s in samples]) for name in names})

    def to(self, device: torch.device) -> Self:
        """The same elsewhere."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})


class HighDataset(Dataset[HighSample]):
    """Sample number `i` depends on seed and `i` alone."""

    def __init__(
        self,
        faces: Faces,
        mattes: NDArray[np.uint8],
        numbers: NDArray[np.intp],
        *,
        size: int,
        look: int,
        length: int,
        seed: int,
    ) -> None:
        """Of pictures by number; raises `MediaError` if there are fewer than two."""
        if len(numbers) < 2:
            raise MediaError("fewer than two pictures of faces in the prepared data")
        self._faces, self._mattes, self._numbers = faces, mattes, numbers
        self._size, self._look = size, look
        self._length, self._seed = length, seed
        self._model = MorphableModel.bundled()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> HighSample:
        draw = np.random.default_rng((self._seed, index))
        photo, other = draw.choice(self._numbers, 2, replace=False).tolist()
        source, _, source_head, _ = self._seen(photo, draw)
        target, matte, head, look = self._seen(photo, draw)
        _, _, other_head, other_look = self._seen(other, draw)
        half = (self._size, self._size)
        small = cv2.resize(source, half, interpolation=cv2.INTER_AREA)
        small, look, target, matte, other_look = (
            _plane(each) for each in (small, look, target, matte[..., None], other_look)
        )
        return HighSample(
            source=small,
            source_head=torch.from_numpy(source_head),
            look=look,
            head=torch.from_numpy(head),
            target=target,
            matte=matte,
            other_look=other_look,
            other_head=torch.from_numpy(other_head),
        )

    def _seen(
        self, number: int, draw: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """A photo tilted, scaled and shifted: (2 S, 2 S, 3), its matte, head and look."""
        side, image = 2 * self._size, self._faces.images[number]
        zoom = side / len(image) * draw.uniform(1 - ZOOM, 1 + ZOOM)
        matrix = cv2.getRotationMatrix2D(
            (len(image) / 2,) * 2, float(draw.uniform(-TILT, TILT)), float(zoom)
        )
        matrix[:, 2] += (side - len(image)) / 2 + draw.uniform(-MOVE, MOVE, 2) * side
        points = self._faces.points[number].copy()
        points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        points[:, 2] *= zoom
        head = head_matrices(points[None].astype(np.float32), side=side, model=self._model)[0]
        # Points have their origin at a pixel's corner, cv2 at its centre.
        centred = matrix.copy()
        centred[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
        mattes = cv2.resize(self._mattes[number], image.shape[:2], interpolation=cv2.INTER_LINEAR)

        def moved(picture: NDArray[np.uint8], border: int) -> NDArray[np.float32]:
            return cv2.warpAffine(picture, centred, (side, side), borderMode=border).astype(
                np.float32
            )

        matte = moved(mattes, cv2.BORDER_CONSTANT)
        picture = moved(image, cv2.BORDER_REPLICATE) * (matte[..., None] / 255)
        return picture, matte, head, aligned_face(picture, head, size=self._look)


def train_mega_high(
    config: MegaHighTraining,
    base: Path,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    on_record: Callable[[Record], None] = unheard,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `base` is a file of `train mega`; the result holds both. Raises `WeightsError` if it isn't one,
    `UsageError` if its pictures have another size than `config` enlarges.
    """
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = MegaHighTask(config, base, data, place, on_progress=on_progress)
        return train(task, folder, options=options, place=place, on_record=on_record)


class MegaHighTask(Task[HighSample]):
    """Photos of many people, a base model, and the enhancer that learns."""

    architecture = MEGA

    def __init__(
        self,
        config: MegaHighTraining,
        base: Path,
        data: Path,
        place: Place,
        *,
        on_progress: Progress = silent,
    ) -> None:
        if place.world > 1:
            raise UsageError("train mega-hr runs in one process; start it without torchrun")
        self.config = config
        self._place = place
        self._data = data.name
        self._shipped = load_network(BaseModel, base, part=BASE)
        self._base = load_network(BaseModel, base, part=BASE)
        if self._base.config.size != config.model.size:
            raise UsageError(
                f"{base}: paints {self._base.config.size} pixels, the enhancer takes"
                f" {config.model.size}"
            )
        fold(self._base)
        self._base.to(place.device)
        faces = Faces.load(data)
        mattes = mattes_of(faces, data, on_progress=on_progress)
        held = np.concatenate(
            [
                np.full(clip.count, is_held_out(clip.identity, share=config.held_out))
                for clip in faces.clips
            ]
        )
        self._kept = kept_aside((c.identity for c in faces.clips), share=config.held_out)[1]

        def samples(which: NDArray[np.bool_], length: int) -> HighDataset:
            return HighDataset(
                faces,
                mattes,
                np.flatnonzero(which),
                size=config.model.size,
                look=self._base.config.look,
                length=length,
                seed=config.seed,
            )

        self._samples = samples(~held, config.steps * config.batch)
        self._judged = samples(held, JUDGED) if held.sum() > 1 else None
        torch.manual_seed(config.seed)
        self._enhancer: Descent[MegaEnhancer] = Descent(
            {ENHANCER: MegaEnhancer(config.model)}, config, place, decay=config.decay
        )
        self._critic = Descent(
            {CRITIC: MegaCritic(config.critic)}, config, place, decay=config.decay
        )

    @property
    def state(self) -> Stateful:
        critic = {f"critic_{name}": part for name, part in self._critic.state.items()}
        return {**self._enhancer.state, **critic}

    @property
    def weights(self) -> Mapping[str, Network]:
        return {BASE: self._shipped, **self._enhancer.averaged}

    def batches(self, steps: range) -> Iterator[HighSample]:
        return self._place.batches(
            self._samples, steps, count=self.config.batch, collate=HighSample.batch
        )

    def step(self, batch: HighSample, number: int) -> Terms:
        batch = batch.to(self._place.device)
        target, matte = unit(batch.target), unit(batch.matte)
        own, other = self._painted(batch)
        enhancer, critic = self._enhancer.networks[ENHANCER], self._critic.networks[CRITIC]
        kept: list[Tensor] = []

        def enhancing() -> Terms:
            weights = self.config.weights
            high, high_matte = split(enhancer(own))
            high_other, _ = split(enhancer(other))  # x_c_HR
            kept.append(torch.cat([high, high_other]).detach())
            with torch.no_grad():
                real = critic(target)
            seen = critic(high)
            apart = F.l1_loss(high, target) + F.l1_loss(high_matte, matte)
            return {
                "mae": weights.mae * apart,
                "adversarial": weights.adversarial * painter_hinge(seen),
                "features": weights.features * feature_matching(seen, real),
                "adversarial_other": weights.adversarial_other * painter_hinge(critic(high_other)),
                # L1(DS_4(x_c), DS_8(x_c_HR)), equation 9
                "cycle": weights.cycle
                * F.l1_loss(
                    F.avg_pool2d(split(other)[0], SHRUNK), F.avg_pool2d(high_other, 2 * SHRUNK)
                ),
            }

        def judging() -> Terms:
            fakes = [critic(fake) for fake in kept[0].chunk(2)]
            real = critic(target)
            losses = [critic_hinge(real, fake) for fake in fakes]
            return {"critic": torch.stack(losses).mean()}

        critic.requires_grad_(False)
        terms = self._enhancer.step(number, enhancing)
        critic.requires_grad_(True)
        return terms | {"critic": self._critic.step(number, judging)["critic"]}

    @torch.no_grad()
    def _painted(self, batch: HighSample) -> tuple[Tensor, Tensor]:
        """x and x_c by the base model: (B, 4, S, S) each, of one source."""
        base, source = self._base, unit(batch.source)
        seen = base.appearance(
            source, batch.source_head, base.expression(source, batch.source_head)
        )
        own = base.drive(seen, batch.head, base.expression_encoder(unit(batch.look)))
        z_other = base.expression_encoder(unit(batch.other_look))
        return own, base.drive(seen, batch.other_head, z_other)

    @torch.no_grad()
    def judge(self) -> Scores:
        """Mean distance of RGB in [0, 1] from photos, enhanced and enlarged plainly."""
        if self._judged is None:
            return {}
        enhancer = self._enhancer.averaged[ENHANCER]
        totals = {"enlarged": 0.0, "enhanced": 0.0}
        for number in range(JUDGED):
            batch = HighSample.batch([self._judged[number]]).to(self._place.device)
            own, target = self._painted(batch)[0], unit(batch.target)
            plain = F.interpolate(own, scale_factor=2, mode="bicubic").clamp(0, 1)
            for name, image in {"enlarged": plain, "enhanced": enhancer(own)}.items():
                totals[name] += float((split(image)[0] - target).abs().mean()) / JUDGED
        return {name: {"l1": round(value, 5)} for name, value in totals.items()}

    def merit(self, scores: Scores) -> float:
        return scores["enhanced"]["l1"]

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"data": {"folder": self._data, "held_out": self._kept}}


def digest(base: Path) -> str:
    """What a `MegaHighTraining` says of its base model: the sha256 of its file."""
    return sha256_of(base)


def split(image: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (B, 3, S, S) times mattes, and those, of (B, 4, S, S)."""
    colours, matte = image.float().split([3, 1], dim=1)
    return colours * matte, matte


def _plane(image: NDArray[Any]) -> Tensor:
    rounded = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(rounded.transpose(2, 0, 1)))
