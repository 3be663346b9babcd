"""Pixel-wise likeness of pictures.

All take float tensors (B, 3, H, W), RGB in [0, 1], and give one value a picture. Values of the
evaluation are those of the whole crop at 256 × 256, after rounding to 8 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Pictures that differ in one 8-bit step of one pixel are about this far apart.
PSNR_LIMIT = 100.0
WINDOW, SIGMA = 11, 1.5
STEADYING = (0.01**2, 0.03**2)


def psnr(result: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,): higher is better, 100 for equal pictures.

    Over all channels of RGB, peak 1.
    """
    error = ((result - truth) ** 2).mean((1, 2, 3))
    return (-10 * error.log10()).clamp(max=PSNR_LIMIT)


def ssim(result: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity, (B,) in [-1, 1]: 1 for equal pictures.

    Wang et al., IEEE TIP 2004: Gaussian window 11 × 11 with σ 1.5, K 0.01 and 0.03; the mean of
    the three channels of RGB over the whole picture, which is mirrored beyond its edges.
    """
    around = (WINDOW // 2,) * 4
    result, truth = (functional.pad(each, around, mode="reflect") for each in (result, truth))
    places = torch.arange(WINDOW, dtype=result.dtype, device=result.device) - WINDOW // 2
    weights = torch.exp(-((places / SIGMA) ** 2) / 2)
    row = (weights / weights.sum())[None, None, None].expand(3, 1, 1, WINDOW)

    def seen(pictures: Tensor) -> Tensor:
        """Means over the window around each pixel, (B, 3, H, W)."""
        return functional.conv2d(
            functional.conv2d(pictures, row, groups=3), row.transpose(2, 3), groups=3
        )

    x, y = seen(result), seen(truth)
    x_spread, y_spread = seen(result**2) - x**2, seen(truth**2) - y**2
    both = seen(result * truth) - x * y
    c1, c2 = STEADYING
    likeness = (2 * x * y + c1) * (2 * both + c2)
    return (likeness / ((x**2 + y**2 + c1) * (x_spread + y_spread + c2))).mean((1, 2, 3))
