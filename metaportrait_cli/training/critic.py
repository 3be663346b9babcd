"""The critic of painted mouths: what distances alone leave blurred, it tells from photos.

Distances are least for the mean of all mouths that there might be, which is pale and soft. The
critic sees what is between the lips, really and as painted, and where lips and rows of teeth are:
those coarsely, for teeth are drawn a little beside their place, which would give them away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.discriminator import Judgement
from metaportrait_cli.networks.layers import SpectralConv2d, leaky_relu
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.regions import OPENING, OUTLINE, UNKNOWN, grown, softened
from metaportrait_cli.networks.teeth import GAP, LOWER, NEAR, UPPER
from metaportrait_cli.training.descent import Descent, DescentConfig, Terms
from metaportrait_cli.training.losses import critic_hinge, feature_matching, painter_hinge
from metaportrait_cli.training.place import Place
from metaportrait_cli.training.state import Stateful

WINDOW = 64
"""Side of what it sees of a patch"""
JITTER = 10
"""Pixels that windows lie beside the middle of the opening, odd and even: the network's own grid is
never the critic's."""
RIM, RIM_SOFT = 4, 3
"""Pixels of lips that are seen around the opening, and over which they fade"""
COARSE = 8
"""Pixels of a patch to one of the rows of teeth"""
GAIN = 2.0
"""Of each layer: norms of one would fade what it sees on its way"""
LEAST_OPEN = 0.004
"""Share of a patch that is unknown, below which a mouth counts as shut"""
# Lips, their opening, what is unknown of it; where it is, how high; rows of teeth.
_FINE = (OUTLINE, OPENING, UNKNOWN, NEAR.start, NEAR.start + 1, GAP.start)
_ROWS = (UPPER.stop - 1, LOWER.stop - 1)


@dataclass(frozen=True)
class MouthCriticConfig:
    widths: tuple[int, ...] = (24, 48, 96, 96)
    """From the window's size down by halves"""


@dataclass(frozen=True)
class CriticTraining:
    """How the critic learns, and how much its word counts."""

    model: MouthCriticConfig = field(default_factory=MouthCriticConfig)
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.99)
    adversarial: float = 0.4
    features: float = 2.0
    """Of the distance of its features"""
    heard: int = 300
    """Steps over which both rise from nothing: at first it knows nothing"""
    penalty: float = 0.5
    """Of its gradient at real pictures (R1: Mescheder et al., ICML 2018)"""
    penalty_every: int = 16
    """Steps"""


class MouthCritic(Network):
    """(B, 3 + 8, S, S) -> a judgement: windows, and what is said of their mouths."""

    config_type = MouthCriticConfig

    def __init__(self, config: MouthCriticConfig) -> None:
        super().__init__(config)
        widths = (3 + len(_FINE) + len(_ROWS), *config.widths)
        self.convs = nn.ModuleList(SpectralConv2d(a, b, kernel=3) for a, b in pairwise(widths))
        self.head = SpectralConv2d(widths[-1], 1, kernel=1)

    def forward(self, windows: Tensor) -> Judgement:
        x, features = windows, []
        for number, conv in enumerate(self.convs):
            # Means, not strides: those would weigh the pixels of a grid differently.
            x = GAIN * leaky_relu(conv(F.avg_pool2d(x, 2) if number else x))
            features.append(x)
        return Judgement(features=tuple(features), logits=self.head(x))


@dataclass(frozen=True)
class _Seen:
    """Windows of a batch, real and painted, (N, 11, S, S)."""

    real: Tensor
    painted: Tensor


class Critique:
    """The critic beside a training of mouths, whose steps alternate with its own."""

    def __init__(self, config: CriticTraining, descent: DescentConfig, place: Place) -> None:
        self._config = config
        torch.manual_seed(descent.seed)
        settings = replace(descent, lr=config.lr, betas=config.betas)
        self._descent = Descent({"critic": MouthCritic(config.model)}, settings, place)
        self._place = place
        self._seed = descent.seed
        self._seen: _Seen | None = None

    @property
    def state(self) -> Stateful:
        """All that it goes on from."""
        return {f"critic_{name}": part for name, part in self._descent.state.items()}

    def terms(self, image: Tensor, target: Tensor, inputs: Tensor, number: int) -> Terms:
        """What the painter is told of its patches (B, 3, P, P); of the true ones, and of what it
        saw. Nothing where all mouths are shut."""
        self._seen = seen = self._windows(image, target, inputs, number)
        if seen is None:
            return {}
        critic = self._descent.networks["critic"].requires_grad_(False)
        with torch.no_grad():
            real = critic(seen.real)
        painted = critic(seen.painted)
        share = min(1.0, number / self._config.heard)
        return {
            "adversarial": share * self._config.adversarial * painter_hinge([painted]),
            "features": share * self._config.features * feature_matching([painted], [real]),
        }

    def learn(self, number: int) -> Mapping[str, Tensor]:
        """The critic's own step, on what was painted last."""
        if self._seen is None:
            return {}
        seen = _Seen(self._seen.real, self._seen.painted.detach())
        self._seen = None
        critic = self._descent.networks["critic"].requires_grad_(True)
        config = self._config

        def judging() -> Terms:
            terms = {"critic": critic_hinge([critic(seen.real)], [critic(seen.painted)])}
            if number % config.penalty_every == 0:
                # For those steps between, too.
                weight = config.penalty * config.penalty_every / 2
                terms["penalty"] = weight * self._steepness(critic, seen.real)
            return terms

        found = self._descent.step(number, judging)
        return {name: found[name] for name in ("critic", "penalty") if name in found}

    def _steepness(self, critic: MouthCritic, real: Tensor) -> Tensor:
        """Mean square of the judgement's gradient at real windows."""
        pictures, said = real[:, :3].detach().requires_grad_(), real[:, 3:]
        with torch.autocast(self._place.device.type, enabled=False):
            logits = critic(torch.cat([pictures, said], dim=1)).logits
            (slope,) = torch.autograd.grad(
                logits.mean(dim=(1, 2, 3)).sum(), pictures, create_graph=True
            )
        return slope.square().sum(dim=(1, 2, 3)).mean()

    def _windows(self, image: Tensor, target: Tensor, inputs: Tensor, number: int) -> _Seen | None:
        unknown = inputs[:, UNKNOWN]
        opened = torch.nonzero(unknown.mean(dim=(1, 2)) > LEAST_OPEN)[:, 0]
        if not len(opened):
            return None
        image, target, inputs, unknown = (x[opened] for x in (image, target, inputs, unknown))
        draw = np.random.default_rng((self._seed, number, self._place.rank))
        jitter = torch.from_numpy(draw.integers(-JITTER, JITTER + 1, (2, len(opened))))
        rows, columns = (
            _places(unknown.mean(dim=2 - axis), by)
            for axis, by in enumerate(jitter.to(inputs.device))
        )
        shown = softened(grown(inputs[:, OPENING : OPENING + 1], RIM), RIM_SOFT)
        teeth = F.avg_pool2d(inputs[:, list(_ROWS)], COARSE)
        teeth = F.interpolate(teeth, scale_factor=COARSE, mode="bilinear", align_corners=False)
        said = torch.cat([inputs[:, list(_FINE)], teeth], dim=1)
        sample = torch.arange(len(opened), device=inputs.device)[:, None, None]

        def window(picture: Tensor) -> Tensor:
            whole = torch.cat([picture * shown, said], dim=1).permute(0, 2, 3, 1)
            part = whole[sample, rows[:, :, None], columns[:, None, :]]
            return part.permute(0, 3, 1, 2)

        return _Seen(real=window(target), painted=window(image.float()))


def _places(profile: Tensor, jitter: Tensor) -> Tensor:
    """Rows or columns (B, S) of windows about the middle of a profile (B, P)."""
    size = profile.shape[1]
    along = torch.arange(size, device=profile.device)
    middle = (profile * along).sum(dim=1) / profile.sum(dim=1)
    first = (middle.round().long() - WINDOW // 2 + jitter).clamp(0, size - WINDOW)
    return first[:, None] + along[:WINDOW]
