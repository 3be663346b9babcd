"""ResNets (He et al., CVPR 2016) with group norms and standardised weights: features at 1/32."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import SpectralConv2d
from metaportrait_cli.networks.mega.blocks import StandardConv

EXPANSION = 4
"""Of bottlenecks"""


class ResNet(nn.Module):
    """(B, 3, S, S) -> (B, `width`, S/32, S/32); with `bottlenecks` ResNet-50, else ResNet-18."""

    def __init__(
        self, layers: Sequence[int], *, width: int, bottlenecks: bool, groups: int
    ) -> None:
        super().__init__()
        self.stem = SpectralConv2d(3, width, kernel=7, stride=2, bias=False)
        self.norm = nn.GroupNorm(groups, width)
        self.blocks = nn.Sequential()
        before = width
        for stage, count in enumerate(layers):
            for number in range(count):
                inner = width << stage
                stride = 2 if stage and not number else 1
                block = Bottleneck if bottlenecks else BasicBlock
                after = inner * EXPANSION if bottlenecks else inner
                self.blocks.append(block(before, inner, after, stride=stride, groups=groups))
                before = after
        self.width = before

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, stride=2, padding=1)
        return self.blocks(x)


class BasicBlock(nn.Module):
    """Two 3-convolutions."""

    def __init__(self, before: int, inner: int, after: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = StandardConv(before, inner, kernel=3, dimensions=2, stride=stride)
        self.conv2 = StandardConv(inner, after, kernel=3, dimensions=2)
        self.norm1, self.norm2 = nn.GroupNorm(groups, inner), nn.GroupNorm(groups, after)
        self.skip = shortcut(before, after, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


class Bottleneck(nn.Module):
    """1-, 3- and 1-convolution, narrow between."""

    def __init__(self, before: int, inner: int, after: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = StandardConv(before, inner, kernel=1, dimensions=2)
        self.conv2 = StandardConv(inner, inner, kernel=3, dimensions=2, stride=stride)
        self.conv3 = StandardConv(inner, after, kernel=1, dimensions=2)
        self.norm1, self.norm2 = nn.GroupNorm(groups, inner), nn.GroupNorm(groups, inner)
        self.norm3 = nn.GroupNorm(groups, after)
        self.skip = shortcut(before, after, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.skip(x))


def shortcut(before: int, after: int, *, stride: int, groups: int) -> nn.Module:
    """What goes beside a block."""
    if before == after and stride == 1:
        return nn.Identity()
    conv = StandardConv(before, after, kernel=1, dimensions=2, stride=stride)
    return nn.Sequential(conv, nn.GroupNorm(groups, after))
