"""The gaze network: where two eyes look and how far they are shut (appendix B.5).

Trained on what landmarks say of irises and lids; its features then tell the base model how eyes
differ. VGG-16 an eye, both summed; key points tell where the head looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.network import Network

EYE_POINTS = 16
"""Key points: a ring around each eye"""
_STAGES = (2, 2, 3, 3, 3)  # convolutions of VGG-16 before each pooling


@dataclass(frozen=True)
class GazeConfig:
    """Sizes of the gaze network."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """VGG-16's"""
    eye: int = 64
    """Side of the picture of an eye"""
    vector: int = 256
    """Length of what an eye is told by"""
    points: int = 64
    """The same of the key points"""

    @classmethod
    def paper(cls) -> Self:
        """VGG-16."""
        return cls()

    @classmethod
    def lite(cls) -> Self:
        """An eighth as wide."""
        return cls(widths=(8, 16, 32, 64, 64), eye=48, vector=64, points=32)


class EyeNetwork(nn.Module):
    """(B, 3, E, E) -> features after the first activation of each stage, and a vector (B, V)."""

    def __init__(self, config: GazeConfig) -> None:
        super().__init__()
        self.first = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in pairwise((3, *config.widths))
        )
        self.more = nn.ModuleList()
        for width, count in zip(config.widths, _STAGES, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count - 1):
                layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
            self.more.append(nn.Sequential(*layers))
        self.vector = nn.Linear(config.widths[-1], config.vector)

    def forward(self, eye: Tensor) -> tuple[list[Tensor], Tensor]:
        x, found = eye * 2 - 1, []
        for number, (first, more) in enumerate(zip(self.first, self.more, strict=True)):
            x = F.relu(first(F.max_pool2d(x, 2) if number else x))
            found.append(x)  # relu1_1, 2_1, 3_1, 4_1, 5_1
            x = more(x)
        return found, self.vector(x.mean(dim=(2, 3)))


class GazeNetwork(Network):
    """Two eyes and key points -> gaze (B, 2) and openness (B, 1)."""

    config_type = GazeConfig

    def __init__(self, config: GazeConfig) -> None:
        super().__init__(config)
        self.eye = EyeNetwork(config)
        self.points = _layers(4 * EYE_POINTS, config.points, config.points, config.points)
        self.gaze = _layers(config.vector + config.points, config.vector, 2)
        self.blink = _layers(config.vector, config.vector, 1)

    def forward(self, eyes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Eyes (B, 2, 3, E, E), key points (B, 32, 2) in units of the face."""
        _, vectors = self.eye(eyes.flatten(0, 1))
        both = F.relu(vectors.unflatten(0, (-1, 2)).sum(dim=1))  # the paper sums the two
        known = F.relu(self.points(points.flatten(1)))
        return self.gaze(torch.cat([both, known], dim=1)), self.blink(both)


def _layers(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
