"""Layers of MegaPortraits: convolutions, norms and residual blocks, in two and three dimensions.

Every convolution but a network's first and last has its weights standardised (Qiao et al., 2019),
all are spectrally normalised, and norms are over groups of channels (appendix A.1, B.1).
Shapes: (B, C, H, W) or (B, C, D, H, W).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import fold_for_inference

Dimensions = Literal[2, 3]

WEIGHT_EPS = 1e-5
SPECTRAL_EPS = 1e-12
SETTLING = 8
"""Power iterations on new weights, so that even a first pass has their norm"""


class StandardConv(nn.Module):
    """A convolution with zero padding whose weights are standardised, then spectrally normalised.

    As elsewhere, training makes one power iteration a pass; evaluation takes the vectors as stored.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self, before: int, after: int, *, kernel: int, dimensions: Dimensions, stride: int = 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(after, before, *[kernel] * dimensions))
        self.bias = nn.Parameter(torch.zeros(after))
        nn.init.normal_(self.weight)
        self.stride = stride
        self.padding = kernel // 2
        self.dimensions = dimensions
        self.register_buffer("u", F.normalize(torch.randn(after), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(before * kernel**dimensions), dim=0))
        if not self.weight.is_meta:
            with torch.no_grad():
                for _ in range(SETTLING):
                    self._iterate(self._standard())

    def forward(self, x: Tensor) -> Tensor:
        convolve = F.conv2d if self.dimensions == 2 else F.conv3d
        return convolve(x, self.effective(), self.bias, self.stride, self.padding)

    def effective(self) -> Tensor:
        """The weight that convolves."""
        matrix = self._standard()  # (C', C k^d)
        if self.training:
            with torch.no_grad():
                self._iterate(matrix)
        # Clones: the next pass changes u and v in place, and autograd still needs these.
        sigma = torch.dot(self.u.clone(), torch.mv(matrix, self.v.clone()))
        return (matrix / sigma).view_as(self.weight)

    def folded(self) -> nn.Module:
        """A plain convolution that does the same."""
        kind = nn.Conv2d if self.dimensions == 2 else nn.Conv3d
        after, before, kernel = self.weight.shape[:3]
        plain = kind(before, after, kernel, stride=self.stride, padding=self.padding)
        plain.weight = nn.Parameter(self.effective().detach(), requires_grad=False)
        plain.bias = nn.Parameter(self.bias.detach(), requires_grad=False)
        return plain

    def _standard(self) -> Tensor:
        matrix = self.weight.flatten(1)
        variance, mean = torch.var_mean(matrix, dim=1, correction=0, keepdim=True)
        return (matrix - mean) * torch.rsqrt(variance + WEIGHT_EPS)

    def _iterate(self, matrix: Tensor) -> None:
        self.v.copy_(F.normalize(matrix.t() @ self.u, dim=0, eps=SPECTRAL_EPS))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=SPECTRAL_EPS))


class Residual(nn.Module):
    """GN, ReLU, conv 3, GN, ReLU, conv 3, beside a 1-conv where the width changes (figure 11 c)."""

    def __init__(self, before: int, after: int, *, groups: int, dimensions: Dimensions) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before)
        self.conv1 = StandardConv(before, after, kernel=3, dimensions=dimensions)
        self.norm2 = nn.GroupNorm(groups, after)
        self.conv2 = StandardConv(after, after, kernel=3, dimensions=dimensions)
        self.skip = (
            StandardConv(before, after, kernel=1, dimensions=dimensions)
            if before != after
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(y))) + self.skip(x)


class AdaptiveNorm(nn.Module):
    """Group norm whose gains and shifts a code moves, through matrices of low rank.

    (dgamma, dbeta) = U u V of a code u (B, K, 16): "we multiply the foregoing sums and additionally
    learned matrices" (appendix A.1). At first they are zero.
    """

    def __init__(self, width: int, *, code: int, places: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.left = nn.Parameter(torch.randn(width, code) / code**0.5)  # U
        self.right = nn.Parameter(torch.zeros(places, 2))  # V

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        moved = self.left @ (code @ self.right)  # U (u V): (B, C, 2)
        gain, shift = moved[..., None, None].unbind(dim=2)  # (B, C, 1, 1) each
        gain = self.norm.weight.view(-1, 1, 1, 1) + gain[..., None]  # gamma_0 + dgamma
        shift = self.norm.bias.view(-1, 1, 1, 1) + shift[..., None]
        return F.group_norm(x, self.norm.num_groups) * gain + shift


class AdaptiveResBlock3d(nn.Module):
    """ResBlock3D*: a residual block whose norms a code moves (figure 9 b)."""

    def __init__(self, before: int, after: int, *, code: int, places: int, groups: int) -> None:
        super().__init__()
        self.norm1 = AdaptiveNorm(before, code=code, places=places, groups=groups)
        self.conv1 = StandardConv(before, after, kernel=3, dimensions=3)
        self.norm2 = AdaptiveNorm(after, code=code, places=places, groups=groups)
        self.conv2 = StandardConv(after, after, kernel=3, dimensions=3)
        self.skip = StandardConv(before, after, kernel=1, dimensions=3)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x, code)))
        return self.conv2(F.relu(self.norm2(y, code))) + self.skip(x)


def upsampled(x: Tensor) -> Tensor:
    """Bilinear, (B, C, H, W) -> (B, C, 2 H, 2 W)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def resized_3d(x: Tensor, places: tuple[int, int, int]) -> Tensor:
    """Trilinear, (B, C, D, H, W) to other (D, H, W); by averages where a side is halved."""
    if tuple(x.shape[2:]) == places:
        return x
    return F.interpolate(x, size=places, mode="trilinear", align_corners=False)


def fold(network: nn.Module) -> None:
    """Replaces convolutions in place by plain ones that do the same; no training afterwards."""
    fold_for_inference(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, StandardConv):
                setattr(parent, name, child.folded())
    network.requires_grad_(False)
