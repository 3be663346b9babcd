"""Whose face it is: 128 numbers for an aligned face, differentiable.

The architecture is that of dlib's face recognition network (Davis King, 2017, after He et al.,
CVPR 2016), whose released weights are CC0; with them the output equals dlib's. Its batch
normalisations are constants by now and folded into the convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  as everywhere
from torch import Tensor, nn

from metaportrait_cli.networks.network import Network

EMBEDDING_SIZE = 128
# Mean colour of the training faces, RGB in [0, 255].
MEAN_COLOUR = (122.782, 117.001, 104.298)
COLOUR_SCALE = 256.0


@dataclass(frozen=True)
class IdentityConfig:
    """Widths and numbers of residual blocks, from the finest level to the coarsest."""

    levels: tuple[tuple[int, int], ...] = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))


class IdentityNetwork(Network):
    """Aligned faces (B, 3, 150, 150), RGB in [0, 1] → embeddings (B, 128), not normalised.

    dlib was trained so that the Euclidean distance of two embeddings is below 0.6 for one person
    and above for two; compare results by `identity_distance` of `metrics.identity`.
    """

    config_type = IdentityConfig

    def __init__(self, config: IdentityConfig | None = None) -> None:
        super().__init__(config or IdentityConfig())
        width = self.config.levels[0][0]
        self.stem = nn.Conv2d(3, width, 7, stride=2)
        blocks = []
        for level, (level_width, count) in enumerate(self.config.levels):
            for index in range(count):
                down = level > 0 and index == 0
                blocks.append(ResidualBlock(width, level_width, down=down))
                width = level_width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, EMBEDDING_SIZE, bias=False)

    def forward(self, chips: Tensor) -> Tensor:
        mean = torch.tensor(MEAN_COLOUR, dtype=chips.dtype, device=chips.device)
        x = (chips * 255 - mean.view(3, 1, 1)) / COLOUR_SCALE
        x = F.max_pool2d(F.relu(self.stem(x)), kernel_size=3, stride=2)  # (B, 32, 35, 35)
        x = self.blocks(x)  # (B, 256, 3, 3)
        return self.head(x.mean(dim=(2, 3)))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; with `down`, at half the resolution.

    dlib's shortcut has no weights: it is averaged down, and where the sum's two sides differ in
    width or size the smaller one counts as zero.
    """

    def __init__(self, width_in: int, width: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.first = nn.Conv2d(
            width_in, width, 3, stride=2 if down else 1, padding=0 if down else 1
        )
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change = self.second(F.relu(self.first(x)))
        if not self.down:
            return F.relu(x + change)
        x = F.avg_pool2d(x, 2)
        shape = [max(a, b) for a, b in zip(x.shape[1:], change.shape[1:], strict=True)]
        return F.relu(_filled(x, shape) + _filled(change, shape))


def _filled(x: Tensor, shape: list[int]) -> Tensor:
    """`x` (B, …) with zeros after its last channel, row and column up to `shape`."""
    channels, height, width = (have - want for have, want in zip(shape, x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels))
