"""What goes wrong when a head is turned: skin that stretches or folds, a background that bends."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.networks.squeezenet import SqueezeNet

# A place that is magnified beyond this in any direction is stretched.
STRETCHED = 2.0
# Neighbours from so far apart in the source, in cells, are an edge of one thing before another.
EDGE = 4.0
AROUND = 6
"""Pixels beyond the background that are seen with it"""
DEGREE = 3


def stretch_and_folds(
    shift: NDArray[np.float32], inside: NDArray[np.bool_], *, side: int
) -> tuple[float, float]:
    """Shares of the area `inside` (G, G) that a flow magnifies beyond twice, and turns over.

    `shift` (G, G, 2) as in `Correspondence`, in pixels of a picture of `side`.
    """
    cell = side / len(shift)
    down, across = np.gradient(shift, cell, axis=(0, 1))
    change = np.stack([across[inside], down[inside]], axis=-1) + np.eye(2)  # (N, 2, 2)
    scales = np.linalg.svd(change, compute_uv=False)  # of the source over that of the picture
    seen = scales[:, 0] < EDGE
    if not seen.any():
        return 0.0, 0.0
    stretched = seen & (scales[:, 1] < 1 / STRETCHED)
    folded = seen & (np.linalg.det(change) < 0)
    return float(stretched.mean()), float(folded.mean())


def background_motion(
    before: NDArray[np.uint8], after: NDArray[np.uint8], background: NDArray[np.bool_]
) -> float:
    """Mean distance in pixels by which `background` (H, W) moved between pictures (H, W, 3).

    What moves before it isn't seen: on a plain background the estimate would follow it.
    """
    around = cv2.dilate(np.uint8(background), np.ones((2 * AROUND + 1,) * 2, np.uint8)) > 0
    seen = np.where(around[..., None], after, before)
    first, second = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (before, seen))
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = estimator.calc(first, second, None)
    return float(np.linalg.norm(flow[background], axis=1).mean())


@torch.no_grad()
def pooled_features(network: SqueezeNet, pictures: Tensor) -> Tensor:
    """One vector a picture, (B, C): the deepest features' mean over its places."""
    return network(pictures)[-1].mean(dim=(2, 3))


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Unbiased squared MMD of two sets of features (N, C) and (M, C); 0 where they are alike.

    Bińkowski et al., ICLR 2018, with its cubic kernel; over the deepest features of SqueezeNet
    rather than Inception, so values don't compare with published ones.
    """
    first, second = first.double(), second.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** DEGREE

    def among(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(among(first) + among(second) - 2 * kernel(first, second).mean())
