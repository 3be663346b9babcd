"""`train fewshot`: meta-learning of talking heads (Zakharov et al., ICCV 2019, Section 3.2).

    metaportrait prepare DATA -o prepared
    metaportrait train fewshot prepared -o run --config lite --minutes 30

An episode is K pictures of a video, which give the embedding, and one more, which is painted from
its landmarks. Embedder and generator learn once a step, the discriminator twice.

The paper compares by VGG19 and VGGFace with Caffe's weights. What stands for them here is the
MobileNetV2 distance of the other trainings, of the whole picture and around the face, and one of
pixels, which the first layers of VGG nearly are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.errors import UsageError
from metaportrait_cli.networks.fewshot import (
    Assessment,
    Discriminator,
    Embedder,
    FewShotConfig,
    Generator,
)
from metaportrait_cli.networks.network import Network
from metaportrait_cli.training.data.episodes import (
    Episode,
    EpisodeDataset,
    judged_episodes,
    videos_of,
)
from metaportrait_cli.training.data.pairs import Faces, kept_aside
from metaportrait_cli.training.descent import Descent, DescentConfig, Terms
from metaportrait_cli.training.loop import Record, Task, train, unheard
from metaportrait_cli.training.losses import pyramid_l1
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import Place, RunOptions, taking_part
from metaportrait_cli.training.state import RunFolder, Scores, Stateful
from metaportrait_cli.weights.architectures import FEWSHOT

EMBEDDER, GENERATOR, DISCRIMINATOR = "embedder", "generator", "discriminator"
D_STEPS = 2
JUDGED = 48
"""Episodes of held-out people"""


@dataclass(frozen=True)
class FewShotWeights:
    """Weights of the terms. Those of content are ours, the others the paper's."""

    pixel: float = 10.0
    perceptual: float = 10.0
    face: float = 2.0
    """For the perceptual distance around the face"""
    adversarial: float = 1.0
    features: float = 10.0
    """For matching the discriminator's features, mean over its layers"""
    match: float = 80.0
    """For the embedding's distance from its video's column; 0 in the feed-forward variant, which
    is not meant to be fine-tuned"""


@dataclass(frozen=True)
class FewShotTraining(DescentConfig):
    """What is trained and how; a run can only be continued with the same."""

    model: FewShotConfig = field(default_factory=FewShotConfig.paper)
    weights: FewShotWeights = field(default_factory=FewShotWeights)
    shots: int = 8
    """K, pictures that an embedding is the mean of"""
    steps: int = 400_000
    batch: int = 2
    lr: float = 5e-5
    d_lr: float = 2e-4
    columns_lr: float = 2e-4
    """Of the videos' columns, which learn in the few steps that see their video alone"""
    betas: tuple[float, float] = (0.0, 0.999)
    plateau: float = 0.6
    average: float = 0.999

    @classmethod
    def paper(cls) -> FewShotTraining:
        """At 256²; the paper took 75 epochs of VoxCeleb2."""
        return cls()

    @classmethod
    def lite(cls) -> FewShotTraining:
        """At 128², narrow: for one GPU and a few hundred clips."""
        return cls(
            model=FewShotConfig.lite(),
            shots=4,
            steps=100_000,
            batch=8,
            lr=2e-4,
            d_lr=4e-4,
            columns_lr=4e-4,
        )

    def feed_forward(self) -> FewShotTraining:
        """The variant without the match loss."""
        return replace(self, weights=replace(self.weights, match=0.0))


def train_fewshot(
    config: FewShotTraining,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    perceptual: PerceptualLoss | None = None,
    on_record: Callable[[Record], None] = unheard,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    Without `perceptual` only pixels and the discriminator's features are compared.
    """
    folder = RunFolder(output, config)
    with taking_part(options) as place:
        task = FewShotTask(config, data, place, perceptual=perceptual)
        return train(task, folder, options=options, place=place, on_record=on_record)


class FewShotTask(Task[Episode]):
    """Videos of many people, each with its own column in the discriminator."""

    architecture = FEWSHOT

    def __init__(
        self,
        config: FewShotTraining,
        data: Path,
        place: Place,
        *,
        perceptual: PerceptualLoss | None,
    ) -> None:
        if place.world > 1:
            raise UsageError("train fewshot runs in one process; start it without torchrun")
        self.config = config
        self._place = place
        self._perceptual = perceptual.to(place.device) if perceptual is not None else None
        self._data = data.name
        self._faces = Faces.load(data)
        self._people, self._kept = kept_aside(
            (clip.identity for clip in self._faces.clips), share=config.held_out
        )
        videos = len(videos_of(self._faces, self._people))
        torch.manual_seed(config.seed)
        self._painters: Descent[Network] = Descent(
            {EMBEDDER: Embedder(config.model), GENERATOR: Generator(config.model)}, config, place
        )
        self._critic = Descent(
            {DISCRIMINATOR: Discriminator(config.model)}, replace(config, lr=config.d_lr), place
        )
        # W. A step sees few videos: sparse, so that the others' columns and moments stay.
        self._columns = nn.Embedding(videos, config.model.embedding, sparse=True)
        nn.init.zeros_(self._columns.weight)
        self._columns.to(place.device)
        self._columns_step = torch.optim.SparseAdam(
            self._columns.parameters(), lr=config.columns_lr
        )
        self._judged = judged_episodes(
            self._faces,
            people=self._kept,
            shots=config.shots,
            size=config.model.size,
            most=JUDGED,
            schema=config.model.landmarks,
        )

    @property
    def state(self) -> Stateful:
        critic = {f"critic_{name}": part for name, part in self._critic.state.items()}
        columns = {"columns": self._columns, "columns_step": self._columns_step}
        return {**self._painters.state, **critic, **columns}

    @property
    def weights(self) -> Mapping[str, Network]:
        # The discriminator goes on with a person.
        return {**self._painters.averaged, **self._critic.averaged}

    def batches(self, steps: range) -> Iterator[Episode]:
        config = self.config
        dataset = EpisodeDataset(
            self._faces,
            people=self._people,
            shots=config.shots,
            size=config.model.size,
            length=config.steps * config.batch,
            seed=config.seed,
            schema=config.model.landmarks,
        )
        return self._place.batches(dataset, steps, count=config.batch, collate=Episode.batch)

    def step(self, batch: Episode, number: int) -> Terms:
        batch = batch.to(self._place.device)
        pictures, landmarks = signed(batch.pictures), signed(batch.landmarks)
        target, drawn = pictures[:, -1], landmarks[:, -1]
        critic = self._critic.networks[DISCRIMINATOR]
        networks = self._painters.networks
        painted: list[Tensor] = []

        def painting() -> Terms:
            embedding = embedded(networks[EMBEDDER], pictures[:, :-1], landmarks[:, :-1])
            image = networks[GENERATOR](drawn, embedding).float()
            painted.append(image.detach())
            self._meet(batch.video, embedding.detach().float())
            whose = self._columns(batch.video)
            with torch.no_grad():
                real = critic(target, drawn)
            seen = critic(image, drawn)
            weights = self.config.weights
            terms = content_terms(
                image, target, batch.points, perceptual=self._perceptual, weights=weights
            )
            score = critic.score(seen.vector.float(), whose.detach())
            terms["adversarial"] = -weights.adversarial * score.mean()
            terms["features"] = weights.features * feature_distance(seen, real)
            if weights.match:
                terms["match"] = weights.match * F.l1_loss(embedding.float(), whose)
            return terms

        def judging() -> Terms:
            whose = self._columns(batch.video)
            real = critic.score(critic(target, drawn).vector.float(), whose)
            fake = critic.score(critic(painted[0], drawn).vector.float(), whose)
            return {"critic": hinge(real, fake)}

        critic.requires_grad_(False)
        terms = self._learn(self._painters, number, painting)
        critic.requires_grad_(True)
        found = [self._learn(self._critic, number, judging) for _ in range(D_STEPS)]
        terms |= {"critic": found[-1]["critic"], "critic_gradient": found[-1]["gradient"]}
        return terms

    @torch.no_grad()
    def _meet(self, videos: Tensor, embeddings: Tensor) -> None:
        """Columns of videos (B,) that were never seen are their embeddings (B, N).

        From small random columns the match loss, half of all gradients, draws embeddings to zero
        in some hundred steps, where their rectifiers are dead.
        """
        unseen = ~self._columns.weight[videos].any(dim=1)
        self._columns.weight[videos[unseen]] = embeddings[unseen]

    def _learn(self, descent: Descent[Any], number: int, terms_of: Callable[[], Terms]) -> Terms:
        """A step of networks, and of the columns that had part in it."""
        self._columns_step.zero_grad(set_to_none=True)
        terms = descent.step(number, terms_of)
        self._columns_step.step()
        return terms

    def judge(self) -> Scores:
        if not self._judged:
            return {}
        return judge_fewshot(
            self.weights, self._judged, perceptual=self._perceptual, device=self._place.device
        )

    def merit(self, scores: Scores) -> float:
        return scores["all"]["l1"] + scores["all"].get("perceptual", 0.0)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "data": {
                "folder": self._data,
                "pictures": len(self._faces.images),
                "videos": self._columns.num_embeddings,
                "people": len(self._people) + len(self._kept),
                "held_out": self._kept,
            },
            "variant": "fine-tuned" if self.config.weights.match else "feed-forward",
            "perceptual_loss": self._perceptual is not None,
        }


def signed(pictures: Tensor) -> Tensor:
    """Bytes as the networks have them, in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def embedded(embedder: nn.Module, pictures: Tensor, landmarks: Tensor) -> Tensor:
    """The mean embedding (B, N) of K pictures each, (B, K, 3, S, S)."""
    each = embedder(pictures.flatten(0, 1), landmarks.flatten(0, 1))
    return each.unflatten(0, pictures.shape[:2]).mean(dim=1)


def content_terms(
    image: Tensor,
    target: Tensor,
    points: Tensor,
    *,
    perceptual: PerceptualLoss | None,
    weights: FewShotWeights,
) -> Terms:
    """Weighted scalars by name, of pictures (B, 3, S, S) in [-1, 1]."""
    image, target = (image + 1) / 2, (target + 1) / 2
    terms = {"pixel": weights.pixel * pyramid_l1(image, target).mean()}
    if perceptual is not None:
        terms["perceptual"] = weights.perceptual * perceptual(image, target).mean()
        terms["face"] = weights.face * perceptual.in_face(image, target, points).mean()
    return terms


def feature_distance(seen: Assessment, real: Assessment) -> Tensor:
    """Mean absolute difference of features, mean over layers (equation 3, L_FM)."""
    pairs = zip(seen.features, real.features, strict=True)
    layers = [F.l1_loss(ours.float(), theirs.float()) for ours, theirs in pairs]
    return torch.stack(layers).mean()


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """L_DSC of scores (B,) (equation 6)."""
    return (F.relu(1 - real) + F.relu(1 + fake)).mean()


@torch.no_grad()
def judge_fewshot(
    networks: Mapping[str, Network],
    episodes: Sequence[Episode],
    *,
    perceptual: PerceptualLoss | None,
    device: torch.device,
) -> Scores:
    """Mean distances from the truth for `one` source, for `all` K, and for the first source as it
    is (`copied`); lower is better.

    `l1` is of RGB in [0, 1]; the perceptual one is the training's own, so it flatters.
    """
    totals: Scores = {}
    for episode in episodes:
        batch = Episode.batch([episode]).to(device)
        pictures, landmarks = signed(batch.pictures), signed(batch.landmarks)
        target, drawn = (pictures[:, -1] + 1) / 2, landmarks[:, -1]
        images = {"copied": pictures[:, 0]}
        for name, few in (("one", slice(0, 1)), ("all", slice(0, -1))):
            embedding = embedded(networks[EMBEDDER], pictures[:, few], landmarks[:, few])
            images[name] = networks[GENERATOR](drawn, embedding)
        for name, image in images.items():
            shown = (image + 1) / 2
            scores = {"l1": (shown - target).abs().mean()}
            if perceptual is not None:
                scores["perceptual"] = perceptual(shown, target).mean()
            into = totals.setdefault(name, {})
            for metric, value in scores.items():
                into[metric] = into.get(metric, 0.0) + float(value)
    return {
        name: {metric: round(value / len(episodes), 5) for metric, value in metrics.items()}
        for name, metrics in totals.items()
    }
