"""StyleGAN2 decoder in its "clean" form, steered by spatial feature transforms (SFT).

The generative half of the temporal super-resolution network (paper, Section 3.3). It sees one
frame at a time; nothing temporal happens here. "Clean" means: plain 3x3 convolutions after
bilinear x2, where StyleGAN2 has transposed convolutions and blur kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import leaky_relu, upsample_twice

DEMODULATION_EPS = 1e-8
START_SIZE = 4


class ModulatedConv2d(nn.Module):
    """Convolution whose weight each sample scales per input channel by its style.

    ``demodulate`` brings every output channel of the scaled weight back to unit length.
    """

    def __init__(
        self, *, in_width: int, out_width: int, kernel: int, style_dim: int, demodulate: bool
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.weight = nn.Parameter(
            torch.randn(out_width, in_width, kernel, kernel) / math.sqrt(in_width * kernel**2)
        )
        self.modulation = nn.Linear(style_dim, in_width)
        nn.init.ones_(self.modulation.bias)

    def forward(self, x: Tensor, style: Tensor, *, gain: float, bias: Tensor | None) -> Tensor:
        """x (B, C, H, W), style (B, style_dim) -> gain * conv(x) + bias."""
        scales = self.modulation(style.to(self.modulation.weight.dtype))  # (B, C)
        outputs = []
        # One plain convolution per sample: faster than a grouped one, and gain, demodulation and
        # bias cost nothing.
        for sample, scale in zip(x, scales, strict=True):
            weight = self.weight * scale[:, None, None]
            if self.demodulate:
                length = weight.square().sum(dim=(1, 2, 3), keepdim=True)
                weight = weight * (gain * torch.rsqrt(length + DEMODULATION_EPS))
            elif gain != 1:
                weight = weight * gain
            outputs.append(
                F.conv2d(sample[None], weight.to(x.dtype), bias, padding=weight.shape[-1] // 2)
            )
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


class StyleConv(nn.Module):
    """Modulated convolution 3x3, noise, bias, LeakyReLU."""

    def __init__(
        self, *, in_width: int, out_width: int, style_dim: int, upsample: bool = False
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv = ModulatedConv2d(
            in_width=in_width, out_width=out_width, kernel=3, style_dim=style_dim, demodulate=True
        )
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(out_width))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        if self.upsample:
            x = upsample_twice(x)
        x = self.conv(x, style, gain=math.sqrt(2), bias=self.bias.to(x.dtype))
        if noise is not None:
            x = x + self.noise_strength * noise
        return leaky_relu(x)


class ToRGB(nn.Module):
    """Modulated convolution 1x1 to three channels, without demodulation; in float32."""

    def __init__(self, *, in_width: int, style_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(
            in_width=in_width, out_width=3, kernel=1, style_dim=style_dim, demodulate=False
        )
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return self.conv(x, style, gain=1, bias=None).float() + self.bias[:, None, None]


class StyleDecoder(nn.Module):
    """Latents and SFT conditions -> image in [-1, 1], nominally."""

    def __init__(self, *, widths: Sequence[int], style_dim: int) -> None:
        """``widths`` of 4, 8, 16, ... pixels."""
        super().__init__()
        levels = len(widths) - 1
        self.start = nn.Parameter(torch.randn(1, widths[0], START_SIZE, START_SIZE))
        self.first_conv = StyleConv(in_width=widths[0], out_width=widths[0], style_dim=style_dim)
        self.first_rgb = ToRGB(in_width=widths[0], style_dim=style_dim)
        self.up_convs = nn.ModuleList(
            StyleConv(in_width=before, out_width=after, style_dim=style_dim, upsample=True)
            for before, after in pairwise(widths)
        )
        self.convs = nn.ModuleList(
            StyleConv(in_width=width, out_width=width, style_dim=style_dim) for width in widths[1:]
        )
        self.rgbs = nn.ModuleList(
            ToRGB(in_width=width, style_dim=style_dim) for width in widths[1:]
        )
        # Stored noise: one map for the first convolution, two for each level.
        for index in range(1 + 2 * levels):
            side = START_SIZE * 2 ** ((index + 1) // 2)
            self.register_buffer(f"noise_{index}", torch.randn(1, 1, side, side))

    def forward(
        self, latents: Tensor, conditions: Sequence[tuple[Tensor, Tensor]], *, stored_noise: bool
    ) -> Tensor:
        """latents (B, 2 + 2 levels, style_dim); per level (scale, shift), (B, C / 2, h, w)."""
        noise = [
            self.get_buffer(f"noise_{index}") if stored_noise else None
            for index in range(1 + 2 * len(self.convs))
        ]
        latent = latents.unbind(dim=1)
        x = self.start.to(conditions[0][0].dtype).expand(len(latents), -1, -1, -1)
        x = self.first_conv(x, latent[0], noise[0])
        rgb = self.first_rgb(x, latent[1])
        for level, (scale, shift) in enumerate(conditions):
            x = self.up_convs[level](x, latent[2 * level + 1], noise[2 * level + 1])
            # SFT on the second half of the channels only; the first keeps what StyleGAN made.
            kept, steered = x.chunk(2, dim=1)
            x = torch.cat([kept, torch.addcmul(shift, steered, scale)], dim=1)
            x = self.convs[level](x, latent[2 * level + 2], noise[2 * level + 2])
            rgb = upsample_twice(rgb) + self.rgbs[level](x, latent[2 * level + 3])
        return rgb
