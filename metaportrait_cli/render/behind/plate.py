"""The background behind the person, made once a source, and still ever after.

A turning head uncovers a strip beside it. There the background goes on as it does elsewhere: every
place takes over the surroundings of the place that looks most like its own (Wexler et al., TPAMI
2007, with the search of Barnes et al., SIGGRAPH 2009), coarse to fine. Deep behind the person,
where nothing is uncovered, colours merely spread.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import smoothstep

Picture = NDArray[np.float32]  # (H, W, 3)
Offsets = NDArray[np.int32]  # (H, W, 2), (y, x)

LEAST = 0.02
"""Share of the person from which a pixel is not background"""
DEPTH = 0.5
"""How far behind the person, in face widths, the background is filled by patches"""
FINEST, COARSEST = 192, 40
"""Longest sides of the pictures in which patches are sought"""
RADIUS = 3
PATCH = tuple(product(range(-RADIUS, RADIUS + 1, 2), repeat=2))
"""Every other pixel of 7 × 7: they are compared and averaged at a third of the cost."""
ROUNDS, LAST_ROUNDS = 4, 2
GUESSES = 3
NEAR = 2000.0 * len(PATCH)
"""What it costs to take a patch from as far away as the picture is long: backgrounds go on as they
are beside the head, not as in the one corner that is wide and plain"""
RAGGED = 1.2
"""Cells of the finest picture over which edges between patches are straightened"""
LEAST_COMMON = 0.05
"""Of a picture, that two must show of the background to be compared"""
SAME_PLACE, SAME_LIGHT = 8.0, 24.0
"""Grey levels by which two pictures of one background differ at most, from noise and from light"""
ENOUGH = 0.4
"""Sizes are too coarse where less of the background than this holds whole patches."""


def background(
    picture: NDArray[np.uint8], alpha: NDArray[np.float32], *, width: float
) -> NDArray[np.uint8]:
    """The picture (H, W, 3) without the person, who covers `alpha` (H, W) of it.

    `width` is the face's, in pixels.
    """
    hole = _hole(alpha, width)
    if hole.all():
        return picture
    smooth = spread(picture.astype(np.float32), 1 - hole.astype(np.float32))
    deep = cv2.distanceTransform(hole, cv2.DIST_L2, 3)
    filled = _patched(picture, smooth, hole, deep < DEPTH * width)
    share = smoothstep((deep / width - 0.6 * DEPTH) / (0.4 * DEPTH))[..., None]
    filled = filled + share * (smooth - filled)
    # The hole is wider than the person: its edge fades into the true background.
    soft = np.maximum(cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1.0), hole)[..., None]
    return np.clip(np.rint(picture + soft * (filled - picture)), 0, 255).astype(np.uint8)


def revealed(
    picture: NDArray[np.uint8],
    alpha: NDArray[np.float32],
    others: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    *,
    width: float,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The picture (H, W, 3) with the background that other pictures show where its person stands,
    and what of `alpha` (H, W) is left of the person.

    Each of the others comes with what its own person covers. It counts where its background is the
    same and stands still, told by what both show of it; its light may differ a little.
    """
    shown, left = picture.copy(), alpha.copy()
    hole = _hole(alpha, width) > 0
    missing = hole.copy()
    for other, covered in others:
        free = _hole(covered, width) == 0
        both = free & ~hole
        new = free & missing
        if both.sum() < LEAST_COMMON * both.size or not new.any():
            continue
        apart = picture[both].astype(np.int16) - other[both]
        light = np.median(apart, axis=0)
        if np.abs(apart - light).max(-1).mean() > SAME_PLACE or np.abs(light).max() > SAME_LIGHT:
            continue
        shown[new] = np.clip(other[new] + light, 0, 255)
        left[new], missing[new] = 0, False
    return shown, left


def plain_background(
    picture: NDArray[np.uint8], alpha: NDArray[np.float32], *, width: float
) -> NDArray[np.uint8]:
    """As `background`, but colours merely spread: at once, and without detail."""
    known = 1 - _hole(alpha, width).astype(np.float32)
    return np.clip(np.rint(spread(picture.astype(np.float32), known)), 0, 255).astype(np.uint8)


def _hole(alpha: NDArray[np.float32], width: float) -> NDArray[np.uint8]:
    reach = 2 * max(2, round(0.02 * width)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return cv2.dilate(np.uint8(alpha > LEAST), disc)


def spread(values: Picture, weight: NDArray[np.float32]) -> Picture:
    """Fills pictures (H, W, C) where `weight` (H, W) is 0, smoothly from where it is 1."""
    levels = [(values * weight[..., None], weight)]
    while min(levels[-1][1].shape) > 2:
        held, share = levels[-1]
        size = ((share.shape[1] + 1) // 2, (share.shape[0] + 1) // 2)
        held = cv2.resize(held, size, interpolation=cv2.INTER_AREA)
        share = cv2.resize(share, size, interpolation=cv2.INTER_AREA)
        levels.append((held.reshape(size[1], size[0], -1), share))
    held, share = levels.pop()
    filled = np.asarray(held / np.maximum(share, 1e-6)[..., None], np.float32)
    while levels:
        held, share = levels.pop()
        up = cv2.resize(filled, share.shape[::-1], interpolation=cv2.INTER_LINEAR)
        up = up.reshape(*share.shape, -1)
        # A cell that was a quarter known says enough.
        enough = np.minimum(share if not levels else 4 * share, 1)[..., None]
        filled = held / np.maximum(share, 1e-6)[..., None] * enough + (1 - enough) * up
    return filled.astype(np.float32)


def _patched(
    picture: NDArray[np.uint8],
    smooth: Picture,
    hole: NDArray[np.uint8],
    near: NDArray[np.bool_],
) -> Picture:
    """The picture with its hole filled by patches where `near` (H, W) is true; else smooth."""
    height, width = hole.shape
    draw = np.random.default_rng(0)
    longest = min(FINEST, max(height, width))
    sides = [longest]
    while sides[-1] > 1.5 * COARSEST:
        sides.append(sides[-1] // 2)
    found: Offsets | None = None
    current: Picture | None = None
    level = None
    for side in reversed(sides):
        level = _Level(picture, smooth, hole, near, side=side)
        if side != longest and level.room < ENOUGH:
            continue
        if not len(level.wanted) or not len(level.sources):
            return smooth
        start = level.smooth if current is None else _between(current, level.shape)
        current = np.where(level.hole[..., None], start, level.picture)
        if found is None:
            # Not from smooth colours: plain patches would look most like them, for ever.
            found = level.nearest.copy()
            current = level.vote(current, found)
        else:
            found = level.enlarged(found)
        for _ in range(LAST_ROUNDS if side == longest else ROUNDS):
            found = level.search(current, found, draw)
            current = level.vote(current, found)
    return smooth if level is None or found is None else level.at_full_size(picture, smooth, found)


class _Level:
    """One size of the picture: where patches are wanted, and where they may come from."""

    def __init__(
        self,
        picture: NDArray[np.uint8],
        smooth: Picture,
        hole: NDArray[np.uint8],
        near: NDArray[np.bool_],
        *,
        side: int,
    ) -> None:
        scale = side / max(hole.shape)
        size = (max(8, round(hole.shape[1] * scale)), max(8, round(hole.shape[0] * scale)))
        area = cv2.INTER_AREA
        # No colour of the person gets in: the hole's pixels are smooth before they are averaged.
        clean = np.where(hole[..., None] > 0, smooth, picture.astype(np.float32))
        self.picture = cv2.resize(clean, size, interpolation=area)
        self.smooth = cv2.resize(smooth, size, interpolation=area)
        self.hole = cv2.resize(hole.astype(np.float32), size, interpolation=area) > 0
        self.shape = self.hole.shape
        near_here = cv2.resize(near.astype(np.float32), size, interpolation=area) > 0
        kernel = np.ones((2 * RADIUS + 1,) * 2, np.uint8)
        # Patches must lie wholly in what is known.
        barred = cv2.dilate(np.uint8(self.hole), kernel, borderType=cv2.BORDER_CONSTANT) > 0
        barred[:RADIUS] = barred[-RADIUS:] = True
        barred[:, :RADIUS] = barred[:, -RADIUS:] = True
        self.allowed = ~barred
        self.room = float(self.allowed.sum() / max(1, (~self.hole).sum()))
        self.sources = np.argwhere(self.allowed)
        # Patches that touch the hole are sought, so that it grows on from its edge.
        self.wanted = np.argwhere(cv2.dilate(np.uint8(self.hole & near_here), kernel) > 0)

    @cached_property
    def nearest(self) -> Offsets:
        """The allowed place (H, W, 2) that is nearest to each pixel."""
        _, labels = cv2.distanceTransformWithLabels(
            np.uint8(~self.allowed), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        places = np.zeros((labels.max() + 1, 2), np.int32)
        places[labels[self.allowed]] = self.sources
        return places[labels]

    def enlarged(self, found: Offsets) -> Offsets:
        """The places found at half the size."""
        rows = np.arange(self.shape[0]) * found.shape[0] // self.shape[0]
        columns = np.arange(self.shape[1]) * found.shape[1] // self.shape[1]
        odd = np.stack(
            np.meshgrid(np.arange(self.shape[0]) % 2, np.arange(self.shape[1]) % 2, indexing="ij"),
            axis=-1,
        )
        places = 2 * found[rows][:, columns] + odd
        places = np.clip(places, 0, np.array(self.shape) - 1).astype(np.int32)
        bad = ~self.allowed[places[..., 0], places[..., 1]]
        places[bad] = self.nearest[bad]
        return places

    def search(self, current: Picture, found: Offsets, draw: np.random.Generator) -> Offsets:
        """Better places: those of the neighbours, moved along, and guesses ever nearer."""
        padded = np.pad(current, ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode="reflect")
        y, x = self.wanted.T
        own = np.stack(
            [padded[y + RADIUS + dy, x + RADIUS + dx] for dy, dx in PATCH], axis=1
        )  # (N, 16, 3)
        best = found[y, x]
        cost = self._cost(padded, own, best, self.wanted)

        def try_places(places: NDArray[np.int64]) -> None:
            places = np.clip(places, 0, np.array(self.shape) - 1)
            fine = self.allowed[places[:, 0], places[:, 1]]
            fine &= (places != best).any(1)
            index = np.flatnonzero(fine)
            if not len(index):
                return
            now = self._cost(padded, own[index], places[index], self.wanted[index])
            better = now < cost[index]
            best[index[better]] = places[index[better]]
            cost[index[better]] = now[better]

        try_places(self.nearest[y, x].astype(np.int64))
        for jump in (4, 1):
            for dy, dx in ((-jump, 0), (jump, 0), (0, -jump), (0, jump)):
                other = np.clip(self.wanted - (dy, dx), 0, np.array(self.shape) - 1)
                found[y, x] = best
                try_places(found[other[:, 0], other[:, 1]] + (dy, dx))
        span = max(self.shape) / 2
        for _ in range(GUESSES):
            try_places(best + np.rint(draw.uniform(-span, span, best.shape)).astype(np.int64))
            span /= 3
        found[y, x] = best
        return found

    def _cost(
        self,
        padded: Picture,
        own: Picture,
        places: NDArray[np.integer],
        wanted: NDArray[np.integer],
    ) -> NDArray[np.float32]:
        y, x = places[:, 0] + RADIUS, places[:, 1] + RADIUS
        away = ((places - wanted) / max(self.shape)) ** 2
        cost = (NEAR * away.sum(1)).astype(np.float32)
        for k, (dy, dx) in enumerate(PATCH):
            apart = own[:, k] - padded[y + dy, x + dx]
            cost += np.einsum("nc,nc->n", apart, apart)
        return cost

    def vote(self, current: Picture, found: Offsets) -> Picture:
        """Each pixel of the hole as the patches that overlap there have it, on average."""
        near = np.zeros(self.shape, bool)
        near[tuple(self.wanted.T)] = True
        target = np.argwhere(near & self.hole)
        total = np.zeros((len(target), 3), np.float32)
        count = np.zeros((len(target), 1), np.float32)
        limit = np.array(self.shape) - 1
        for step in PATCH:
            centre = target - step
            inside = ((centre >= 0) & (centre <= limit)).all(1)
            centre = np.clip(centre, 0, limit)
            inside &= near[centre[:, 0], centre[:, 1]]
            place = np.clip(found[centre[:, 0], centre[:, 1]] + step, 0, limit)
            weight = inside[:, None].astype(np.float32)
            total += weight * current[place[:, 0], place[:, 1]]
            count += weight
        result = current.copy()
        result[target[:, 0], target[:, 1]] = total / np.maximum(count, 1)
        return result

    def at_full_size(self, picture: NDArray[np.uint8], smooth: Picture, found: Offsets) -> Picture:
        """The whole picture's own pixels by the places found here, the four nearest ones' mixed."""
        height, width = picture.shape[:2]
        scale = np.array([height / self.shape[0], width / self.shape[1]], np.float32)
        near = np.zeros(self.shape, np.float32)
        near[tuple(self.wanted.T)] = 1
        mesh = np.indices(self.shape).transpose(1, 2, 0).astype(np.float32)
        offsets = ((found - mesh) * scale).astype(np.float32)  # (h, w, 2)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        down, along = (y[:, 0] + 0.5) / scale[0] - 0.5, (x[0] + 0.5) / scale[1] - 0.5
        total = np.zeros_like(smooth)
        for below, right in product((0, 1), repeat=2):
            rows = np.clip(np.floor(down).astype(int) + below, 0, self.shape[0] - 1)
            columns = np.clip(np.floor(along).astype(int) + right, 0, self.shape[1] - 1)
            weight = np.outer(np.abs(1 - below - down % 1), np.abs(1 - right - along % 1)).astype(
                np.float32
            )
            shift = offsets[rows][:, columns]
            total += weight[..., None] * cv2.remap(
                picture,
                x + shift[..., 1],
                y + shift[..., 0],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
        # Where places jump, edges are ragged by a cell.
        ragged = 2 * round(RAGGED * float(scale.max())) + 1
        even = cv2.medianBlur(np.clip(np.rint(total), 0, 255).astype(np.uint8), ragged)
        share = cv2.resize(near, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
        return smooth + share * (even - smooth)


def _between(picture: Picture, shape: tuple[int, int]) -> Picture:
    return cv2.resize(picture, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
