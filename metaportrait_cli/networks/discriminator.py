"""Patch discriminator (paper, Section 3.1, L_adv): one realness logit per patch of the image."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import leaky_relu
from metaportrait_cli.networks.network import Network


@dataclass(frozen=True)
class DiscriminatorConfig:
    widths: tuple[int, ...] = (64, 128, 256, 512)
    scales: int = 1
    """One discriminator per scale, each seeing the image at half the size of the one before.

    The released training used a single scale, where the paper says several."""

    @classmethod
    def released(cls) -> Self:
        return cls()


@dataclass(frozen=True)
class Judgement:
    features: tuple[Tensor, ...]
    """Output of each block, (B, C_i, H_i, W_i), for the feature matching loss"""
    logits: Tensor
    """(B, 1, h, w), not squashed: the released losses are least squares"""


class PatchDiscriminator(nn.Module):
    """Convolutions 4x4 without padding; no normalisation in the first block, no pooling in the
    last."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        widths = (3, *config.widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 4) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(
            nn.InstanceNorm2d(width, affine=True) for width in config.widths[1:]
        )
        self.head = nn.Conv2d(config.widths[-1], 1, 1)

    def forward(self, image: Tensor) -> Judgement:
        x, features = image, []
        for index, conv in enumerate(self.convs):
            x = conv(x)
            x = leaky_relu(self.norms[index - 1](x) if index else x)
            if index < len(self.convs) - 1:
                x = F.avg_pool2d(x, 2)
            features.append(x)
        return Judgement(features=tuple(features), logits=self.head(x))


class MultiScaleDiscriminator(Network):
    """(B, 3, H, W), RGB in [0, 1] -> one judgement per scale, finest first."""

    config_type = DiscriminatorConfig

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config)
        self.scales = nn.ModuleList(PatchDiscriminator(config) for _ in range(config.scales))

    def forward(self, image: Tensor) -> list[Judgement]:
        judgements = []
        for index, discriminator in enumerate(self.scales):
            if index:
                image = F.avg_pool2d(image, 2)
            judgements.append(discriminator(image))
        return judgements
