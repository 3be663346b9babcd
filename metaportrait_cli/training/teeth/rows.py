"""A row of teeth as the mean of open mouths, laid out along the arch and registered by the gaps.

Teeth are told by detail: the logarithm of brightness without what is coarser than a tooth. A
row's template is registered to each mouth by correlation, then refined by optical flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.networks.teeth import TeethConfig
from metaportrait_cli.render.mouths.own_teeth import brightness, detail

Image = NDArray[np.float32]

CLOSE = 0.004  # of linear light: the noise of dark pixels
LEAST_LIKENESS = 0.45
ENOUGH = 8.0
"""Mouths that are needed for a mean"""
FROM_LIPS = 2.0
"""Millimetres from the lips in which these shade teeth, or are mixed in: they count less"""
LIGHT_REACH = 4.0
"""Millimetres over which a row by anatomy takes the light of what was learnt beside it"""
KNOWN = 0.75
OUTLIER = 0.35
"""Logarithm by which a mouth may differ from the mean before it counts half"""
FARTHEST_FLOW, FLOW_SMOOTH = 1.5, 1.2  # mm
SHARPEN = 1.1  # undoes what the mean has blurred
# A row ends where its brightness falls below this share of that of its bodies.
EDGE_SHARE = 0.42
SOFT_EDGE, INSIDE_EDGE = 0.35, 0.45  # mm


@dataclass(frozen=True)
class Laid:
    """One mouth laid out along the arch: linear light (H, W, 3) and where it is known (H, W)."""

    light: Image
    known: Image

    def moved(self, x: int, y: int) -> Laid:
        """By so many pixels."""
        matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
        size = self.known.shape[::-1]
        light, known = (cv2.warpAffine(z, matrix, size) for z in (self.light, self.known))
        return Laid(light, known)


def template_of(texture: Image, pixels: int) -> Image:
    """The detail (H, W) of a texture (H, W, 4) before the dark."""
    light = (0.6 * texture[..., :3] + 0.03 * (1 - texture[..., 3:])).astype(np.float32)
    found, _ = detail(brightness(light), np.ones(texture.shape[:2], np.float32), pixels)
    return found


def mean_detail(mouths: Sequence[tuple[Laid, float]], pixels: int) -> Image:
    """The mean detail (H, W) of mouths in place, with their weights."""
    total, weight = 0.0, 2.0
    for mouth, share in mouths:
        found, known = detail(brightness(mouth.light), mouth.known, pixels)
        total, weight = total + share * found, weight + share * known
    return np.asarray(total / weight, np.float32)


def refined(template: Image, mouth: Laid, pixels: int) -> Laid:
    """The mouth bent so that its gaps lie on the template's."""
    found, known = detail(brightness(mouth.light), mouth.known, pixels)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(
        _grey(template), _grey(found), np.zeros((*template.shape, 2), np.float32)
    )
    most, sigma = FARTHEST_FLOW * pixels, FLOW_SMOOTH * pixels
    weight = cv2.GaussianBlur(known, (0, 0), sigma)[..., None] + 0.05
    flow = cv2.GaussianBlur(np.clip(flow, -most, most) * known[..., None], (0, 0), sigma) / weight
    height, width = template.shape
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    light, there = (cv2.remap(z, x, y, cv2.INTER_LINEAR) for z in (mouth.light, mouth.known))
    away = cv2.distanceTransform((there > KNOWN).astype(np.uint8), cv2.DIST_L2, 3)
    return Laid(light, there * np.minimum(away / (FROM_LIPS * pixels), 1).astype(np.float32))


def mean_light(
    mouths: Sequence[tuple[Laid, float]], body: NDArray[np.bool_]
) -> tuple[Image, Image, int]:
    """Logarithm of the mean of linear light (H, W, 3) against that of the bodies of teeth, which
    are where `body` (H, W) says; how much of each pixel was seen; and of how many mouths."""
    logs, weights = [], []
    for mouth, share in mouths:
        inside = body & (mouth.known > 0.5)
        if inside.sum() < 0.1 * body.sum():
            continue
        colour = np.percentile(mouth.light[inside], 65, axis=0)
        logs.append(np.log((mouth.light + CLOSE) / (colour + CLOSE)).astype(np.float16))
        weights.append((share * mouth.known).astype(np.float16))
    if not logs:
        height, width = body.shape
        return np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32), 0
    log = np.stack(logs).astype(np.float32)
    weight = np.stack(weights).astype(np.float32)
    for _ in range(2):
        mean = (log * weight[..., None]).sum(0) / (weight.sum(0)[..., None] + 1e-3)
        apart = np.abs(log - mean).mean(-1)
        weight = weight / (1 + (apart / OUTLIER) ** 2)
    return mean.astype(np.float32), weight.sum(0), len(logs)


def texture_of(
    mean: Image, seen: Image, start: NDArray[np.float32], config: TeethConfig
) -> NDArray[np.float32]:
    """A texture (H, W, 4) from a mean of logarithms; where hardly anybody shows the row it is that
    of `start`, a row by anatomy, in the light of the mean."""
    pixels = config.pixels
    height, width, _ = config.texture
    v = (np.arange(height) + 0.5) / pixels - config.gum
    fine = mean.mean(-1)
    fine = fine - cv2.GaussianBlur(fine, (0, 0), 0.6 * pixels)
    mean = mean + SHARPEN * fine[..., None]
    bare = np.exp(cv2.GaussianBlur(mean.mean(-1), (0, 0), 0.12 * pixels))
    body = np.percentile(bare[(v > -6) & (v < -2)], 80, axis=0)[None].astype(np.float32)
    body = cv2.blur(body, (9 * pixels | 1, 1), borderType=cv2.BORDER_REPLICATE)
    bright = (bare > EDGE_SHARE * body) & (v[:, None] > -8) & (v[:, None] < 0.7)
    lowest = height - 1 - bright[::-1].argmax(0)
    last = np.where(bright.any(0), lowest, round((config.gum - 3) * pixels))
    edge = cv2.GaussianBlur(v[last][None].astype(np.float32), (0, 0), 0.12 * pixels)[0]
    cover = np.clip((edge - v[:, None]) / SOFT_EDGE + 0.5, 0, 1)
    # Pixels at the edge are mixed with the dark behind: theirs is the colour a little above.
    rows = np.minimum(np.arange(height)[:, None], (edge + config.gum - INSIDE_EDGE) * pixels)
    columns = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
    mean = cv2.remap(mean, columns, rows.astype(np.float32), cv2.INTER_LINEAR)
    learnt = np.dstack([np.exp(mean) * cover[..., None], cover])
    share = np.clip(seen / ENOUGH - 0.5, 0, 1)
    share = cv2.GaussianBlur(share.astype(np.float32), (0, 0), 0.8 * pixels)[..., None]
    light = _smooth(learnt[..., :3] * share, pixels) / (
        _smooth(start[..., :3] * share, pixels) + 1e-3
    )
    reach = np.clip(_smooth(share, pixels)[..., None] / 0.05, 0, 1)
    known = start.copy()
    known[..., :3] *= 1 + reach * (np.clip(light, 0.3, 1.5) - 1)
    return (share * learnt + (1 - share) * known).astype(np.float32)


def _smooth(image: Image, pixels: int) -> Image:
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), LIGHT_REACH * pixels)


def _grey(found: Image) -> NDArray[np.uint8]:
    return np.clip(128 + 150 * found, 0, 255).astype(np.uint8)
