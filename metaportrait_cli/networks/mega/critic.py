"""The patch discriminator of the base model and of the high-resolution stage (section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.discriminator import Judgement
from metaportrait_cli.networks.layers import SpectralConv2d, instance_norm, leaky_relu
from metaportrait_cli.networks.network import Network


@dataclass(frozen=True)
class MegaCriticConfig:
    """Widths of the blocks; all but the last halve the size."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    scales: int = 2
    """Of the picture: whole, and halved"""

    @classmethod
    def lite(cls) -> MegaCriticConfig:
        """Half as wide."""
        return cls(widths=(32, 64, 128, 256))


class MegaCritic(Network):
    """(B, 3, S, S) -> a judgement for each scale, finest first."""

    config_type = MegaCriticConfig

    def __init__(self, config: MegaCriticConfig) -> None:
        super().__init__(config)
        self.scales = nn.ModuleList(PatchCritic(config.widths) for _ in range(config.scales))

    def forward(self, image: Tensor) -> list[Judgement]:
        found = []
        for critic in self.scales:
            found.append(critic(image))
            image = F.avg_pool2d(image, 2)
        return found


class PatchCritic(nn.Module):
    """conv 3, instance norm, leaky ReLU, four times; then a score a place."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        last = len(widths) - 1
        self.convs = nn.ModuleList(
            SpectralConv2d(before, after, kernel=3, stride=1 if number == last else 2)
            for number, (before, after) in enumerate(pairwise((3, *widths)))
        )
        self.head = SpectralConv2d(widths[-1], 1, kernel=1)

    def forward(self, image: Tensor) -> Judgement:
        x, features = image, []
        for number, conv in enumerate(self.convs):
            x = conv(x)
            # Not the first: the mean of a picture's patch says how bright it is.
            x = leaky_relu(instance_norm(x) if number else x)
            features.append(x)
        return Judgement(features=tuple(features), logits=self.head(x))
