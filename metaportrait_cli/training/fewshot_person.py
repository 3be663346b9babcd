"""The few-shot stage: a person's own generator and critic (Zakharov et al., ICCV 2019, 3.3).

Meta-learning gave where they start: psi' = P ê and w' = w_0 + ê. Counted in steps, few of them: the
generator soon knows the pictures by heart, and forgets how to speak.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.networks.fewshot import Discriminator, Embedder, Generator
from metaportrait_cli.training.descent import Average, Terms
from metaportrait_cli.training.fewshot import (
    DISCRIMINATOR,
    EMBEDDER,
    GENERATOR,
    FewShotWeights,
    content_terms,
    embedded,
    feature_distance,
    hinge,
    signed,
)
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.weights.store import load_network, read_header

ONE, MANY = (1, 125), (30, 230)
"""Pictures, and the steps that serve so many: what the authors' later work on the same networks
takes"""


@dataclass(frozen=True)
class FewShotPersonConfig:
    """How a person is learnt."""

    weights: FewShotWeights = field(default_factory=FewShotWeights)
    """Those of content and of the adversary; nothing is to match any more"""
    batch: int = 8
    lr: float = 5e-4
    d_lr: float = 8e-4
    betas: tuple[float, float] = (0.0, 0.999)
    clip_norm: float = 1.0
    average: float = 0.972


@dataclass(frozen=True)
class FewShotNetworks:
    """All that meta-learning made."""

    embedder: Embedder
    generator: Generator
    discriminator: Discriminator

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a file of `train fewshot`. Raises `WeightsError`."""
        if DISCRIMINATOR not in read_header(path).configs:
            raise WeightsError(
                f"{path}: holds no discriminator, by which a person is learnt; train it again"
            )
        return cls(
            embedder=load_network(Embedder, path, part=EMBEDDER).float(),
            generator=load_network(Generator, path, part=GENERATOR).float(),
            discriminator=load_network(Discriminator, path, part=DISCRIMINATOR).float(),
        )


@dataclass(frozen=True)
class PersonPictures:
    """T pictures of a person. S is the generator's size."""

    pictures: Tensor
    """(T, 3, S, S) uint8"""
    landmarks: Tensor
    """Their landmark images (T, 3, S, S) uint8"""
    points: Tensor
    """(T, 478, 3) in pixels"""


def steps_for(pictures: int) -> int:
    """How long to learn from so many pictures."""
    (few, short), (many, long) = ONE, MANY
    return round(float(np.interp(pictures, [few, many], [short, long])))


class FewShotStage:
    """One person on the way."""

    def __init__(
        self,
        networks: FewShotNetworks,
        known: PersonPictures,
        *,
        config: FewShotPersonConfig,
        perceptual: PerceptualLoss | None,
        device: torch.device,
        seed: int,
        embedding: Tensor | None = None,
    ) -> None:
        """Copies the networks. `embedding` (1, N) is ê, by default the mean over the pictures."""
        self.step = 0
        self._config, self._perceptual, self._seed = config, perceptual, seed
        self._known = PersonPictures(*(each.to(device) for each in vars(known).values()))
        embedder = networks.embedder.to(device)
        if embedding is None:
            with torch.no_grad():
                embedding = embedded(
                    embedder, signed(known.pictures[None]), signed(known.landmarks[None])
                )
        # A copy: one that was made in inference mode can't be learnt with.
        self.embedding = embedding.to(device).float().clone()
        self._base = networks.generator
        # In evaluation its spectral norms stay as they are: a portrait holds parameters alone.
        self._generator = copy.deepcopy(networks.generator).to(device).eval()
        # psi' = P ê + bias, of which P and ê stay: its bias is psi' as a free parameter.
        self._generator.projection.weight.requires_grad_(False)
        self._critic = copy.deepcopy(networks.discriminator).to(device).train()
        # w' = w_0 + ê as a free parameter: w_0 stays.
        self._critic.w0.requires_grad_(False)
        self._own = nn.Parameter(self.embedding.clone())
        self._average = Average(self._generator, decay=config.average)
        self._paints = self._optimizer([*self._generator.parameters()], config.lr)
        self._judges = self._optimizer([*self._critic.parameters(), self._own], config.d_lr)

    @property
    def generator(self) -> Generator:
        """The generator of now: an average over the last steps."""
        return copy.deepcopy(self._average.network)

    def deltas(self) -> dict[str, Tensor]:
        """What it has that the base hasn't, by `generator.parameter`."""
        start = dict(self._base.named_parameters())
        learnt = dict(self._generator.named_parameters())
        return {
            f"{GENERATOR}.{name}": (value - start[name].to(value)).detach().cpu()
            for name, value in self._average.network.named_parameters()
            if learnt[name].requires_grad
        }

    def advance(self) -> Terms:
        """One step of both."""
        draw = np.random.default_rng((self._seed, self.step))
        count = len(self._known.pictures)
        # With T pictures batches of at most T: one of a single picture would only repeat it.
        chosen = torch.from_numpy(
            draw.choice(count, min(self._config.batch, count), replace=False)
        ).to(self.embedding.device)
        target = signed(self._known.pictures[chosen])
        drawn = signed(self._known.landmarks[chosen])
        terms = self._painted(target, drawn, self._known.points[chosen])
        self.step += 1
        self._average.update(self._generator, self.step)
        return terms

    def _painted(self, target: Tensor, drawn: Tensor, points: Tensor) -> Terms:
        weights, critic = self._config.weights, self._critic
        critic.requires_grad_(False)
        image = self._generator(drawn, self.embedding.expand(len(target), -1))
        with torch.no_grad():
            real = critic(target, drawn)
        seen = critic(image, drawn)
        terms = content_terms(image, target, points, perceptual=self._perceptual, weights=weights)
        score = critic.score(seen.vector, self._own.detach())
        terms["adversarial"] = -weights.adversarial * score.mean()
        terms["features"] = weights.features * feature_distance(seen, real)
        self._descend(self._paints, terms)
        critic.requires_grad_(True)
        critic.w0.requires_grad_(False)
        scores = [
            critic.score(critic(each, drawn).vector, self._own) for each in (target, image.detach())
        ]
        judged = {"critic": hinge(*scores)}
        self._descend(self._judges, judged)
        return terms | judged

    def _descend(self, optimizer: torch.optim.Optimizer, terms: Terms) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self._config.clip_norm)
        optimizer.step()

    def _optimizer(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        learning = [each for each in parameters if each.requires_grad]
        return torch.optim.RAdam(learning, lr=lr, betas=self._config.betas)
