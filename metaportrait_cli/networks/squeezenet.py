"""SqueezeNet 1.1 without its classifier: features for a perceptual distance.

Iandola et al. 2016; the weights are the authors' Caffe release (BSD-2-Clause). torchvision's
weights of the same name come from another training, so their channels mean other things.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  as everywhere
from torch import Tensor, nn

from metaportrait_cli.networks.network import Network

# Mean colour of the training pictures, RGB in [0, 255].
MEAN_COLOUR = (123.0, 117.0, 104.0)


@dataclass(frozen=True)
class SqueezeNetConfig:
    """Widths of the stem and of the fire modules: (squeezed, expanded) each."""

    stem: int = 64
    fires: tuple[tuple[int, int], ...] = (
        (16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256),
    )  # fmt: skip
    pool_before: tuple[int, ...] = (0, 2, 4)
    """Fire modules that see half the resolution of what comes before."""
    taken_after: tuple[int, ...] = (1, 3, 4, 5, 6, 7)
    """Fire modules whose output is a feature map; the stem's always is."""


class SqueezeNet(Network):
    """Pictures (B, 3, H, W), RGB in [0, 1] → the seven maps that LPIPS takes, fine to coarse."""

    config_type = SqueezeNetConfig

    def __init__(self, config: SqueezeNetConfig | None = None) -> None:
        super().__init__(config or SqueezeNetConfig())
        self.stem = nn.Conv2d(3, self.config.stem, 3, stride=2)
        width = self.config.stem
        fires = []
        for squeezed, expanded in self.config.fires:
            fires.append(Fire(width, squeezed, expanded))
            width = 2 * expanded
        self.fires = nn.ModuleList(fires)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        mean = torch.tensor(MEAN_COLOUR, dtype=pictures.dtype, device=pictures.device)
        x = F.relu(self.stem(pictures * 255 - mean.view(3, 1, 1)))
        maps = [x]
        for index, fire in enumerate(self.fires):
            if index in self.config.pool_before:
                x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
            x = fire(x)
            if index in self.config.taken_after:
                maps.append(x)
        return maps


class Fire(nn.Module):
    """Squeezes to few channels, expands by 1×1 and 3×3 convolutions side by side."""

    def __init__(self, width: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))
