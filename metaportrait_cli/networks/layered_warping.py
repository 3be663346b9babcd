"""The warping network of a portrait in layers: it moves the person and says how much of it is seen.

The same network as `CompactWarping`, on another prior: the flow of a sheet in depth before a still
background. It sees besides what that sheet knows of the source, and its fourth output hides what
the sheet shows too much of: hair that thins out, a seam beside the jaw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metaportrait_cli.networks.compact_blocks import enlarge, shrink, warp
from metaportrait_cli.networks.compact_warping import CompactConditions, CompactWarping, corrected

KNOWN = 3
"""Planes of the sheet: the person's share of a pixel, depth, the head's share in its motion"""
PLATE = 3


@dataclass(frozen=True)
class LayeredConditions(CompactConditions):
    """The driven frames; `flow` is the sheet's, 0 where it covers nothing."""

    cover: Tensor
    """How much of a cell the sheet covers, (B, 1, G, G) in [0, 1]"""


class LayeredWarping(CompactWarping):
    """The sheet's flow → a better one, and how much of the sheet is seen."""

    further_planes = 2 * KNOWN + PLATE + 1

    @classmethod
    def started_from(cls, network: CompactWarping) -> Self:
        """With what a network learnt on the flow of one sheet, and nothing yet of the layers."""
        ours = cls(network.config)
        seen = torch.zeros_like(ours.enter.conv.weight)
        seen[:, : -cls.further_planes] = network.enter.conv.weight
        head = {f"head.{key}": value.clone() for key, value in network.head.state_dict().items()}
        for values in head.values():
            values[3:] = 0
        ours.load_state_dict({**network.state_dict(), **head, "enter.conv.weight": seen})
        return ours

    def encode_layers(self, known: Tensor, plate: Tensor) -> Tensor:
        """Planes of the sheet (B, 3, G, G) and the background (B, 3, S, S), once a source."""
        dtype = self.motion_code.weight.dtype
        return torch.cat([shrink(x, self.size).to(dtype) for x in (known, plate)], dim=1)

    def layered(
        self, source: Tensor, layers: Tensor, driven: LayeredConditions
    ) -> tuple[Tensor, Tensor]:
        """The corrected flow (B, 2, G, G), and how much of the sheet is seen (B, 1, G, G) in
        [0, 1], both float32; `source` and `layers` are what the two encodings gave."""
        said = enlarge(self.said(source, layers, driven), driven.flow.shape[-1])
        return corrected(driven.flow.float(), said), (1 - said[:, 3:]).clamp(0, 1)

    def said(self, source: Tensor, layers: Tensor, driven: LayeredConditions) -> Tensor:
        """What to change, (B, 4, W/2, W/2): as `correction`, the fourth is what isn't seen."""
        prior, cover = (shrink(x, self.size) for x in (driven.flow, driven.cover))
        conditions = [shrink(x, self.size) for x in (driven.lines, driven.gap)]
        moving = warp(source[:, :-3], prior)
        beside = warp(layers[:, :KNOWN], prior) * cover.to(source.dtype)
        planes = [source, moving, *conditions, prior, layers, beside, cover]
        return self.through(torch.cat([x.to(source.dtype) for x in planes], dim=1))
