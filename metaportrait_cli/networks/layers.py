"""Layers that several networks share, and the folding that turns a trained network into a fast one.

Shapes: B batch, C channels, H rows, W columns. All resizing is bilinear with
``align_corners=False`` and without antialiasing, as the released weights were trained.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

NORM_EPS = 1e-5
LEAKY_SLOPE = 0.2
SPECTRAL_EPS = 1e-12

Layer = TypeVar("Layer", bound=nn.Module)


def instance_norm(x: Tensor) -> Tensor:
    """(B, C, H, W) with zero mean and unit variance in each channel, in x's memory format."""
    # F.instance_norm would turn channels-last features around and back.
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    scale = torch.rsqrt(variance + NORM_EPS)
    return torch.addcmul(-mean * scale, x, scale)


def leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAKY_SLOPE)


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear to ``size`` (rows, columns); plain bilinear also when shrinking."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def upsample_twice(x: Tensor) -> Tensor:
    """Bilinear, (B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class _SpectralNorm:
    """Divides a raw weight by its largest singular value, estimated by power iteration.

    Training runs one iteration per forward pass. Evaluation uses the stored vectors as they are:
    released checkpoints stop short of convergence, so recomputing sigma would change the network.
    """

    weight: Tensor
    u: Tensor
    v: Tensor
    training: bool
    output_axis: int

    def _matrix(self) -> Tensor:
        return self.weight.transpose(0, self.output_axis).flatten(1)  # (out, rest)

    def normalised_weight(self) -> Tensor:
        matrix = self._matrix()
        if self.training:
            with torch.no_grad():
                self.v.copy_(F.normalize(matrix.t() @ self.u, dim=0, eps=SPECTRAL_EPS))
                self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=SPECTRAL_EPS))
        # Clones: the next forward pass changes u and v in place, and autograd still needs these.
        sigma = torch.dot(self.u.clone(), torch.mv(matrix, self.v.clone()))
        return self.weight / sigma


class SpectralConv2d(_SpectralNorm, nn.Conv2d):
    """Convolution under spectral normalisation; ``weight`` is the raw one."""

    output_axis = 0

    def __init__(
        self, in_width: int, out_width: int, *, kernel: int, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_width, out_width, kernel, stride=stride, padding=kernel // 2, bias=bias)
        self.register_buffer("u", F.normalize(torch.randn(out_width), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(in_width * kernel**2), dim=0))

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.normalised_weight(), self.bias, self.stride, self.padding)

    def folded(self) -> nn.Conv2d:
        plain = conv2d(
            self.in_channels,
            self.out_channels,
            kernel=self.kernel_size[0],
            stride=self.stride[0],
            bias=self.bias is not None,
        )
        return _with_weights(plain, self.normalised_weight(), self.bias)


class SpectralConvTranspose2d(_SpectralNorm, nn.ConvTranspose2d):
    """Transposed convolution, stride 1, under spectral normalisation along the *output* axis."""

    output_axis = 1

    def __init__(self, in_width: int, out_width: int, *, kernel: int) -> None:
        super().__init__(in_width, out_width, kernel)
        self.register_buffer("u", F.normalize(torch.randn(out_width), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(in_width * kernel**2), dim=0))

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None:
            raise ValueError("stride 1 leaves no choice of output size")
        return F.conv_transpose2d(input, self.normalised_weight(), self.bias)

    def folded(self) -> nn.ConvTranspose2d:
        plain = nn.ConvTranspose2d(self.in_channels, self.out_channels, self.kernel_size[0])
        return _with_weights(plain, self.normalised_weight(), self.bias)


class NearestUpConv2d(nn.Conv2d):
    """Nearest x2, then convolution 3x3: (B, C, H, W) -> (B, C', 2H, 2W)."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__(in_width, out_width, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.interpolate(input, scale_factor=2, mode="nearest"))

    def folded(self) -> PhaseUpConv2d:
        folded = PhaseUpConv2d(self.in_channels, self.out_channels)
        return _with_weights(folded, _phase_kernels(self.weight), self.bias)


class PhaseUpConv2d(nn.Module):
    """The same as :class:`NearestUpConv2d` at 4/9 of the multiplications.

    After nearest x2 each 3x3 window holds only 2x2 different pixels, so each of the four output
    phases is a 2x2 convolution of the small image with summed taps. Zero padding agrees exactly.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4 * out_width, in_width, 2, 2))
        self.bias = nn.Parameter(torch.empty(out_width))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        out = self.weight.new_empty(
            (batch, self.bias.shape[0], height, 2, width, 2), dtype=x.dtype, device=x.device
        )
        for phase, kernel in enumerate(self.weight.chunk(4)):
            row, column = divmod(phase, 2)
            padded = F.pad(x, (1 - column, column, 1 - row, row))
            out[:, :, :, row, :, column] = F.conv2d(padded, kernel, self.bias)
        return out.view(batch, -1, 2 * height, 2 * width)


def _phase_kernels(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) -> (4 O, I, 2, 2), phases ordered (row, column) = 00, 01, 10, 11."""

    def merge(kernel: Tensor, axis: int, phase: int) -> Tensor:
        first, middle, last = kernel.unbind(axis)
        pair = (first, middle + last) if phase == 0 else (first + middle, last)
        return torch.stack(pair, dim=axis)

    return torch.cat([merge(merge(weight, 2, row), 3, col) for row in (0, 1) for col in (0, 1)])


class EqualisedLinear(nn.Linear):
    """Linear layer whose weight is scaled by sqrt(2 / inputs) at run time."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * math.sqrt(2 / self.in_features), self.bias)


class AdaptiveInstanceNorm(nn.Module):
    """AdaIN of a feature map by a code: InstanceNorm(x) * (1 + gamma(code)) + beta(code)."""

    def __init__(self, *, width: int, code_dim: int, hidden: int) -> None:
        super().__init__()
        self.shared = nn.Linear(code_dim, hidden)
        self.modulation = nn.Linear(hidden, 2 * width)  # gamma | beta

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        gamma, beta = self.modulation(F.relu(self.shared(code))).chunk(2, dim=1)  # (B, C) each
        # One sample after the other along the channel axis, so that the kernel which normalises
        # also scales and shifts: one pass over memory instead of three.
        return F.instance_norm(
            x.reshape(1, -1, *x.shape[2:]),
            weight=1 + gamma.reshape(-1),
            bias=beta.reshape(-1),
            eps=NORM_EPS,
        ).view(x.shape)


class AdaptiveConvBlock(nn.Module):
    """Convolution 3x3 -> AdaIN by a code -> ReLU, optionally after nearest x2."""

    def __init__(
        self, *, in_width: int, out_width: int, code_dim: int, hidden: int, upsample: bool = False
    ) -> None:
        super().__init__()
        self.conv = (
            NearestUpConv2d(in_width, out_width)
            if upsample
            else conv2d(in_width, out_width, kernel=3)
        )
        self.norm = AdaptiveInstanceNorm(width=out_width, code_dim=code_dim, hidden=hidden)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x), code))


def conv2d(
    in_width: int,
    out_width: int,
    *,
    kernel: int,
    stride: int = 1,
    bias: bool = True,
    spectral: bool = False,
) -> nn.Conv2d:
    """Convolution with zero padding ``kernel // 2``, spectrally normalised if asked."""
    if spectral:
        return SpectralConv2d(in_width, out_width, kernel=kernel, stride=stride, bias=bias)
    return nn.Conv2d(in_width, out_width, kernel, stride=stride, padding=kernel // 2, bias=bias)


def fold_for_inference(network: nn.Module) -> None:
    """Replace layers in place by equal, faster ones: spectral norm divided out, up-convolutions
    by phases. The network can't be trained afterwards."""
    network.eval()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SpectralConv2d | SpectralConvTranspose2d | NearestUpConv2d):
                setattr(parent, name, child.folded())
    network.requires_grad_(False)


def _with_weights(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer
