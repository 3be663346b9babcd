"""A teacher for the flow: where each target pixel really came from, as far as it can be seen.

Photometric losses pull a flow by the gradient of the picture, a pixel or two at a time. Dense
inverse search (Kroeger et al., ECCV 2016) between the target and the source under the prior finds
the rest of the way at once; the network, which sees landmarks instead of the target, learns to
foresee it.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Pixel = TypeVar("Pixel", np.uint8, np.float32)

ERROR_WINDOW = 9  # pixels of the flow's grid
ERROR_FLOOR = 2.0  # grey levels: differences below are noise


def teacher_flow(
    source: NDArray[np.uint8], target: NDArray[np.uint8], prior: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Flow (G, G, 2) from pictures (S, S, 3) and the prior (G, G, 2), and how far to trust it.

    Flows are backward, (x, y), in half sides. The trust (G, G) in [0, 255] is by how much the
    flow explains the target better than the prior does; flat and hidden places have none.
    """
    grid = prior.shape[0]
    half = grid / 2
    ours, theirs = _grey(source, grid), _grey(target, grid)
    under_prior = _moved(ours, prior * half)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rest = search.calc(theirs, under_prior, None)  # (G, G, 2) in pixels of the grid
    # First back through what is left over, from there on back through the prior.
    flow = rest / half + _moved(prior, rest)
    before = _error(under_prior, theirs)
    after = _error(_moved(ours, flow * half), theirs)
    trust = np.clip((before - after) / (before + ERROR_FLOOR), 0, 1)
    return flow.astype(np.float32), np.rint(trust * 255).astype(np.uint8)


def _grey(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def _error(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float32]:
    difference = cv2.absdiff(image, target).astype(np.float32)
    return cv2.blur(difference, (ERROR_WINDOW, ERROR_WINDOW))


def _moved(image: NDArray[Pixel], flow: NDArray[np.floating]) -> NDArray[Pixel]:
    """The image (G, G, …) sampled at each pixel's place plus flow (G, G, 2) in pixels."""
    places = flow.astype(np.float32).copy()
    centres = np.arange(flow.shape[0], dtype=np.float32)
    places[..., 0] += centres[None, :]
    places[..., 1] += centres[:, None]
    return cv2.remap(image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
