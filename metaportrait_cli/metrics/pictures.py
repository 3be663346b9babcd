"""Pixel-wise likeness of pictures.

All take float tensors (B, 3, H, W), RGB in [0, 1], and give one value a picture. Values of the
evaluation are those of the whole crop at 256 × 256, after rounding to 8 bits.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

# Pictures that differ in one 8-bit step of one pixel are about this far apart.
PSNR_LIMIT = 100.0


def psnr(result: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,): higher is better, 100 for equal pictures.

    Over all channels of RGB, peak 1.
    """
    values = peak_signal_noise_ratio(result, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=PSNR_LIMIT)


def ssim(result: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity, (B,) in [-1, 1]: 1 for equal pictures.

    Wang et al., IEEE TIP 2004: Gaussian window 11 × 11 with σ 1.5, K 0.01 and 0.03; the mean of
    the three channels of RGB.
    """
    values = structural_similarity_index_measure(result, truth, data_range=1.0, reduction="none")
    if not isinstance(values, Tensor):
        raise TypeError("torchmetrics gave more than the similarity")
    return values.reshape(-1)
