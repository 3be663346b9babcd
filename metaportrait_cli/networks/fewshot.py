"""Few-shot talking heads (Zakharov et al., ICCV 2019): embedder, generator, discriminator.

Pictures and landmark images are (B, 3, S, S) RGB in [-1, 1]. The paper leaves out widths and block
counts; these give its parameter counts (15, 38 and 20 million). All convolutions and the
projection P are spectrally normalised; resizing is nearest upwards and by averages downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import SpectralConv2d, instance_norm
from metaportrait_cli.networks.network import Network

SETTLING = 8
"""Power iterations at the start: from one pass to the next training makes only one."""


@dataclass(frozen=True)
class FewShotConfig:
    """All three networks of a training have the same."""

    size: int = 256
    """Side of the pictures"""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    """After each halving of embedder and discriminator; the last one is N, the embedding's"""
    halvings: int = 4
    """Of the generator's encoder; its decoder doubles as often"""
    blocks: int = 4
    """Of the generator, where its features are smallest"""
    attention: int = 32
    """Side of the features with self-attention on the way down"""
    attention_up: int = 64
    """The same, on the generator's way up"""
    landmarks: str = "lines478"
    """How landmark images are drawn; see `face.landmark_image`"""

    def __post_init__(self) -> None:
        """Raises `ValueError` where sizes don't go together."""
        if self.size % (1 << len(self.widths)) or not 0 < self.halvings <= len(self.widths):
            raise ValueError("the size must allow for all halvings")

    @classmethod
    def paper(cls) -> Self:
        """At 256²: 14.83, 37.91 and 19.55 million parameters without self-attention."""
        return cls()

    @classmethod
    def lite(cls) -> Self:
        """At 128²: 2.46, 2.76 and 3.64 million."""
        return cls(
            size=128,
            widths=(32, 64, 128, 256, 256),
            halvings=3,
            attention=16,
            attention_up=32,
        )

    @property
    def embedding(self) -> int:
        """N, the length of an embedding."""
        return self.widths[-1]

    @property
    def styled_widths(self) -> tuple[int, ...]:
        """Of the generator's adaptive norms, in order."""
        down = self.widths[: self.halvings]
        up = [width for before, after in self.up_widths for width in (before, after)]
        return (*[down[-1]] * (2 * self.blocks), *up, down[0])

    @property
    def up_widths(self) -> tuple[tuple[int, int], ...]:
        """Before and after each doubling."""
        down = self.widths[: self.halvings]
        return tuple(pairwise((down[-1], *reversed(down))))


@dataclass(frozen=True)
class Assessment:
    """What the discriminator sees in pictures."""

    features: tuple[Tensor, ...]
    """After each residual block, for feature matching"""
    vector: Tensor
    """V(x, y), (B, N)"""


class Embedder(Network):
    """E: a picture and its landmark image -> embedding (B, N)."""

    config_type = FewShotConfig

    def __init__(self, config: FewShotConfig) -> None:
        super().__init__(config)
        self.trunk = Trunk(6, config, config.widths, normed=False)
        settle(self)

    def forward(self, picture: Tensor, landmarks: Tensor) -> Tensor:
        features = self.trunk(torch.cat([landmarks, picture], dim=1))
        return F.relu(features[-1]).sum(dim=(2, 3))


class Discriminator(Network):
    """V with w_0 and b: how real a picture is, and how well it fits its landmark image."""

    config_type = FewShotConfig

    def __init__(self, config: FewShotConfig) -> None:
        super().__init__(config)
        self.trunk = Trunk(6, config, config.widths, normed=False)
        self.last = PlainBlock(config.embedding, config.embedding)
        # Vectors, not layers: normalised ones would not add up to w' = w_0 + e.
        self.w0 = nn.Parameter(torch.empty(config.embedding).uniform_(-0.1, 0.1))
        self.b = nn.Parameter(torch.zeros(()))
        settle(self)

    def forward(self, picture: Tensor, landmarks: Tensor) -> Assessment:
        features = self.trunk(torch.cat([landmarks, picture], dim=1))
        features = [*features, self.last(features[-1])]
        vector = F.relu(features[-1]).sum(dim=(2, 3))
        return Assessment(features=tuple(features), vector=vector)

    def score(self, vector: Tensor, whose: Tensor) -> Tensor:
        """r (B,) of vectors (B, N) and columns W_i (B, N) of their videos (equation 5).

        For a new person the embedding stands for the column, which the match loss made alike.
        """
        return (vector * (whose + self.w0)).sum(dim=1) + self.b


class Generator(Network):
    """G: landmark images and an embedding -> pictures of whoever it is of."""

    config_type = FewShotConfig

    def __init__(self, config: FewShotConfig) -> None:
        super().__init__(config)
        down = config.widths[: config.halvings]
        self.encoder = Trunk(3, config, down, normed=True)
        self.middle = nn.ModuleList(StyledBlock(down[-1], down[-1]) for _ in range(config.blocks))
        self.up = nn.ModuleList(StyledBlock(a, b, up=True) for a, b in config.up_widths)
        self.attention = nn.ModuleDict()
        for index, (_, width) in enumerate(config.up_widths):
            if config.size >> (config.halvings - 1 - index) == config.attention_up:
                self.attention[str(index)] = SelfAttention(width)
        self.head = SpectralConv2d(down[0], 3, kernel=3)
        # P as a convolution over one pixel, for its spectral norm.
        self.projection = SpectralConv2d(config.embedding, 2 * sum(config.styled_widths), kernel=1)
        with torch.no_grad():
            # Everybody starts from plain instance norms: gains of 1, shifts of 0.
            gains = [
                torch.cat([torch.ones(width), torch.zeros(width)]) for width in config.styled_widths
            ]
            self.projection.load_state_dict({"bias": torch.cat(gains)}, strict=False)
        settle(self)

    def style(self, embedding: Tensor) -> Tensor:
        """psi-hat: all gains and shifts of the adaptive norms, (B, A), of embeddings (B, N)."""
        return self.projection(embedding[:, :, None, None])[:, :, 0, 0]

    def forward(self, landmarks: Tensor, embedding: Tensor) -> Tensor:
        return self.painted(landmarks, self.style(embedding))

    def painted(self, landmarks: Tensor, style: Tensor) -> Tensor:
        """The pictures in a style that is there already."""
        each = iter(style.split([2 * width for width in self.config.styled_widths], dim=1))
        x = self.encoder(landmarks)[-1]
        for block in self.middle:
            x = block(x, next(each), next(each))
        for index, block in enumerate(self.up):
            x = block(x, next(each), next(each))
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
        return torch.tanh(self.head(F.relu(adaptive_norm(x, next(each)))))


class Trunk(nn.Module):
    """Residual blocks that halve the size each -> the features after each, finest first."""

    def __init__(
        self, in_width: int, config: FewShotConfig, widths: tuple[int, ...], *, normed: bool
    ) -> None:
        super().__init__()
        self.first = FirstBlock(in_width, widths[0])
        self.rest = nn.ModuleList(
            PlainBlock(before, after, down=True, normed=normed)
            for before, after in pairwise(widths)
        )
        self.attention = nn.ModuleDict()
        for index, width in enumerate(widths):
            if config.size >> (index + 1) == config.attention:
                self.attention[str(index)] = SelfAttention(width)

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for index, block in enumerate((self.first, *self.rest)):
            x = block(x)
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
            found.append(x)
        return found


class FirstBlock(nn.Module):
    """A residual block on a picture, which needs no activation before it: (B, C', H/2, W/2)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = SpectralConv2d(before, after, kernel=3)
        self.conv2 = SpectralConv2d(after, after, kernel=3)
        self.skip = SpectralConv2d(before, after, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        # Averaging goes before the 1x1 convolution: the same result for a quarter of the work.
        return F.avg_pool2d(self.conv2(F.relu(self.conv1(x))), 2) + self.skip(F.avg_pool2d(x, 2))


class PlainBlock(nn.Module):
    """(Norm), ReLU, 3x3, (norm), ReLU, 3x3, (halving), beside a 1x1 where the shape changes."""

    def __init__(
        self, before: int, after: int, *, down: bool = False, normed: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = SpectralConv2d(before, after, kernel=3, bias=not normed)
        self.conv2 = SpectralConv2d(after, after, kernel=3, bias=not normed)
        changes = down or before != after
        self.skip = (
            SpectralConv2d(before, after, kernel=1, bias=not normed) if changes else nn.Identity()
        )
        self.norm1 = nn.InstanceNorm2d(before, affine=True) if normed else nn.Identity()
        self.norm2 = nn.InstanceNorm2d(after, affine=True) if normed else nn.Identity()
        self._down = down

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        if self._down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return y + self.skip(x)


class StyledBlock(nn.Module):
    """AdaIN, ReLU, (doubling), 3x3, AdaIN, ReLU, 3x3, beside a 1x1 where the shape changes."""

    def __init__(self, before: int, after: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv1 = SpectralConv2d(before, after, kernel=3, bias=False)
        self.conv2 = SpectralConv2d(after, after, kernel=3, bias=False)
        changes = up or before != after
        self.skip = SpectralConv2d(before, after, kernel=1, bias=False) if changes else None
        self._up = up

    def forward(self, x: Tensor, style1: Tensor, style2: Tensor) -> Tensor:
        y = F.relu(adaptive_norm(x, style1))
        x = x if self.skip is None else self.skip(x)
        if self._up:
            x, y = (F.interpolate(each, scale_factor=2, mode="nearest") for each in (x, y))
        y = self.conv1(y)
        return self.conv2(F.relu(adaptive_norm(y, style2))) + x


class SelfAttention(nn.Module):
    """Every place looks at every other (Zhang et al., ICML 2019); at first without effect."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(1, width // 8)
        self.query = SpectralConv2d(width, narrow, kernel=1, bias=False)
        self.key = SpectralConv2d(width, narrow, kernel=1, bias=False)
        self.value = SpectralConv2d(width, width, kernel=1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (B, H W, C)
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.gamma * seen.transpose(1, 2).reshape(x.shape)


def adaptive_norm(x: Tensor, style: Tensor) -> Tensor:
    """Instance norm of (B, C, H, W) with gains and shifts from a style (B, 2 C)."""
    gain, shift = style[:, :, None, None].chunk(2, dim=1)
    return torch.addcmul(shift, instance_norm(x), gain)


@torch.no_grad()
def settle(network: nn.Module) -> None:
    """Finds the largest singular values of new weights, so that even a first pass has them."""
    for module in network.modules():
        if isinstance(module, SpectralConv2d) and not module.weight.is_meta:
            for _ in range(SETTLING):
                module.normalised_weight()
