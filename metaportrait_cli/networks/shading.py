"""How folds and shading change with a face's expression, on a map in the mesh's own coordinates.

What changes is the logarithm of light. A source's own map of light gives once a few patterns; an
expression only mixes them, so that a frame costs next to nothing:

    change = sum over k of (weight_k(own + change of expression) - weight_k(own)) * pattern_k

so a face whose expression does not change keeps its light exactly.

Shapes: B faces, E coefficients of expression, K patterns, M the side of the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from metaportrait_cli.networks.compact_blocks import ConvBlock, enlarge, zeroed
from metaportrait_cli.networks.layers import conv2d, leaky_relu
from metaportrait_cli.networks.network import Network

LIGHT_CHANNELS = 2
"""Of what a source shows: folds and shading, and how surely each place is seen."""


@dataclass(frozen=True)
class ShadingConfig:
    side: int = 64
    """M"""
    expression: int = 53
    """E, and three angles of the head, so that its turns aren't taken for expression"""
    patterns: int = 24
    """K"""
    places: int = 8
    """Learnt channels that say which part of the face a place belongs to"""
    widths: tuple[int, ...] = (16, 24, 32)
    """From the full size down"""
    hidden: int = 64


class ShadingNetwork(Network):
    """Patterns of a source, and how much of each an expression shows."""

    config_type = ShadingConfig

    def __init__(self, config: ShadingConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.places = nn.Parameter(torch.randn(config.places, config.side, config.side))
        self.enter = ConvBlock(in_width=LIGHT_CHANNELS + config.places, out_width=widths[0])
        self.down = nn.ModuleList(
            ConvBlock(in_width=a, out_width=b, stride=2) for a, b in pairwise(widths)
        )
        self.middle = ConvBlock(in_width=widths[-1], out_width=widths[-1])
        self.up = nn.ModuleList(
            ConvBlock(in_width=a + b, out_width=a) for a, b in reversed(list(pairwise(widths)))
        )
        self.head = conv2d(widths[0], config.patterns, kernel=3)
        self.enter_expression = nn.Linear(config.expression, config.hidden)
        self.mix = nn.Linear(config.hidden, config.hidden)
        self.leave = zeroed(nn.Linear(config.hidden, config.patterns))

    def patterns(self, light: Tensor) -> Tensor:
        """Patterns (B, K, M, M) of what sources show (B, 2, M, M)."""
        x = self.enter(torch.cat([light, self.places.expand(len(light), -1, -1, -1)], dim=1))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([enlarge(x, skip.shape[-1]), skip], dim=1))
        return self.head(x)

    def weights(self, own: Tensor, change: Tensor) -> Tensor:
        """How much of each pattern (B, K) comes with a change (B, E) of one's own (B, E)."""
        return self._levels(own + change) - self._levels(own)

    def forward(self, light: Tensor, own: Tensor, change: Tensor) -> Tensor:
        """The change of light (B, M, M), a logarithm."""
        return torch.einsum("bk,bkij->bij", self.weights(own, change), self.patterns(light))

    def _levels(self, expression: Tensor) -> Tensor:
        x = leaky_relu(self.enter_expression(expression))
        return self.leave(leaky_relu(self.mix(x)))
