"""Adversaries of the region networks (paper, Section 3.1, L_adv): real patch or repainted one?

An average of all mouths that would fit is the best guess by any distance, and looks like none:
grey, without teeth. An adversary that sees real ones beside it doesn't let that pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.face.regions import Kind
from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.region_critic import RegionCritic, RegionCriticConfig
from metaportrait_cli.networks.regions import MAPS

# Pixels around lips or lids that it sees: skin further out is moved, not painted, and would tell.
MARGIN = 4
LR, BETAS = 4e-4, (0.5, 0.99)
HEAD_START = 150
"""Steps that an adversary learns before anyone learns from it; at first it only guesses."""


@dataclass(frozen=True)
class Example:
    """A repainted patch and what it should be, both (B, 3, P, P); `inputs` (B, 11, P, P) that it
    was made from."""

    image: Tensor
    target: Tensor
    inputs: Tensor


class Adversaries(nn.Module):
    """A critic for each kind of region, and how they learn."""

    def __init__(self, kinds: Sequence[Kind], *, device: torch.device) -> None:
        super().__init__()
        self.of = nn.ModuleDict({kind: RegionCritic(RegionCriticConfig()) for kind in kinds})
        channels_last(self.to(device))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LR, betas=BETAS)

    def terms(
        self, kind: Kind, made: Example, *, adversarial: float, matching: float
    ) -> dict[str, Tensor]:
        """Weighted scalars by name, to train the region network by: hinge loss (Miyato et al.,
        2018), and the distance of the critic's features."""
        # Out of training its spectral norms stay as they are, the same for both pictures.
        critic = self.of[kind].requires_grad_(False).eval()
        with torch.no_grad():
            real = critic(_seen(made.target, made.inputs))
        fake = critic(_seen(made.image, made.inputs))
        apart = [
            (ours.float() - theirs.float()).abs().mean()
            for ours, theirs in zip(fake.features, real.features, strict=True)
        ]
        return {
            "adversarial": -adversarial * fake.realness.float().mean(),
            "matching": matching * torch.stack(apart).mean(),
        }

    def learn(self, made: Mapping[Kind, Example]) -> dict[str, Tensor]:
        """One step towards telling the images from their targets; returns the losses by name."""
        losses: dict[str, Tensor] = {}
        for kind, example in made.items():
            critic = self.of[kind].requires_grad_(True).train()
            pictures = (example.image.detach(), example.target)
            both = torch.cat([_seen(picture, example.inputs) for picture in pictures])
            fake, real = critic(both).realness.float().chunk(2)
            losses[f"{kind}_adversary"] = F.relu(1 + fake).mean() + F.relu(1 - real).mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}


def _seen(picture: Tensor, inputs: Tensor) -> Tensor:
    """Lips or lids of a picture, grey around, in [-1, 1], and the maps: (B, 6, P, P)."""
    maps = inputs[:, MAPS]
    near = F.max_pool2d(maps[:, :1], 2 * MARGIN + 1, stride=1, padding=MARGIN)
    return torch.cat([(2 * picture - 1) * near, maps], dim=1)
