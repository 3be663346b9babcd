"""A hole in a picture filled by patches of the rest: everything goes on as it does elsewhere.

Every place takes over the surroundings of the place that looks most like its own (Wexler et al.,
TPAMI 2007, with the search of Barnes et al., SIGGRAPH 2009), coarse to fine. It begins with places
found ring by ring from the hole's edge inwards, each by what is known around it: lines and borders
that run into the hole go on there, and no later search finds them if the beginning lost them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]  # (H, W, 3)
Offsets = NDArray[np.int32]  # (H, W, 2), (y, x)

FINEST, COARSEST = 192, 40
"""Longest sides of the pictures in which patches are sought"""
FINE = tuple(product((-3, -1, 1, 3), (-3, -1, 1, 3)))
COARSE = tuple(product((-2, -1, 0, 1, 2), (-2, -1, 0, 1, 2)))
"""Pixels of a patch: every other one of 7 × 7, compared and averaged at a third of the cost; and in
the coarse picture all of 5 × 5, for there is less room beside a person"""
ROUNDS, GUESSES = 2, 3
NEAR = 8000.0
"""What it costs, for each pixel of a patch, to take it from as far away as the picture is long:
backgrounds go on as they are beside the head, not as in the one corner that is wide and plain"""
RAGGED = 1.2
"""Cells of the finest picture over which edges between patches are straightened"""


def patched(
    picture: NDArray[np.uint8],
    smooth: Picture,
    hole: NDArray[np.uint8],
    near: NDArray[np.bool_],
) -> Picture:
    """The picture with its hole filled by patches where `near` (H, W) is true; else smooth.

    Just around the hole it is what patches would have there.
    """
    draw = np.random.default_rng(0)
    longest = min(FINEST, max(hole.shape))
    fine = _Level(picture, smooth, hole, near, side=longest, patch=FINE)
    coarse = fine
    if longest // 2 >= COARSEST:
        coarse = _Level(picture, smooth, hole, near, side=longest // 2, patch=COARSE)
    if any(not len(level.wanted) or not len(level.sources) for level in (coarse, fine)):
        return smooth
    current, found = coarse.peeled()
    if coarse is not fine:
        found = coarse.search(current, found, draw)
        current = coarse.vote(current, found)
        start = cv2.resize(current, fine.shape[::-1], interpolation=cv2.INTER_LINEAR)
        current = np.where(fine.hole[..., None], start, fine.picture)
        found = fine.enlarged(found)
    for _ in range(ROUNDS):
        found = fine.search(current, found, draw)
        current = fine.vote(current, found)
    return fine.at_full_size(picture, smooth, found)


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
        patch: Sequence[tuple[int, int]],
    ) -> None:
        self._patch = patch
        self._radius = radius = max(max(step) for step in patch)
        scale = side / max(hole.shape)
        size = (max(8, round(hole.shape[1] * scale)), max(8, round(hole.shape[0] * scale)))
        area = cv2.INTER_AREA
        # No colour of the person gets in: the hole's pixels are smooth before they are averaged.
        clean = np.where(hole[..., None] > 0, smooth, picture.astype(np.float32))
        self.picture = cv2.resize(clean, size, interpolation=area)
        self.smooth = cv2.resize(smooth, size, interpolation=area)
        self.hole = cv2.resize(hole.astype(np.float32), size, interpolation=area) > 0
        self.shape = self.hole.shape
        self._near = cv2.resize(near.astype(np.float32), size, interpolation=area) > 0
        kernel = np.ones((2 * radius + 1,) * 2, np.uint8)
        # Patches must lie wholly in what is known.
        barred = cv2.dilate(np.uint8(self.hole), kernel, borderType=cv2.BORDER_CONSTANT) > 0
        barred[:radius] = barred[-radius:] = True
        barred[:, :radius] = barred[:, -radius:] = True
        self.allowed = ~barred
        self.sources = np.argwhere(self.allowed)
        # Patches that touch the hole are sought, so that it grows on from its edge.
        self.wanted = np.argwhere(cv2.dilate(np.uint8(self.hole & self._near), kernel) > 0)

    def peeled(self) -> tuple[Picture, Offsets]:
        """The picture (H, W, 3) filled from the hole's edge inwards, and from which places."""
        current, found = np.where(self.hole[..., None], self.smooth, self.picture), self.nearest
        known, left = ~self.hole, self.hole & self._near
        cell = np.ones((3, 3), np.uint8)
        # Around the middle grey, for the products below cancel.
        offered = self._around(self.picture, self.sources) - 128  # (N, P, 3)
        their_own = np.square(offered).sum(2).T
        while (ring := left & (cv2.dilate(np.uint8(known), cell) > 0)).any():
            places = np.argwhere(ring)
            seen = self._around(known.astype(np.float32), places)  # (M, P)
            ours = (self._around(current, places) - 128) * seen[..., None]
            cost = (
                seen @ their_own
                - 2 * ours.reshape(len(places), -1) @ offered.reshape(len(offered), -1).T
            )
            cost += np.square(ours).sum((1, 2))[:, None]
            cost /= seen.sum(1)[:, None]
            away = np.square((places[:, None] - self.sources) / max(self.shape)).sum(2)
            best = self.sources[(cost + NEAR * away).argmin(1)]
            found[ring], current[ring] = best, self.picture[tuple(best.T)]
            known |= ring
            left &= ~ring
        return current, found

    def _around(self, values: NDArray[np.float32], places: NDArray[np.int64]) -> Picture:
        """What patches at places (N, 2) hold of values (H, W, …), (N, P, …)."""
        more = [(self._radius,) * 2] * 2 + [(0, 0)] * (values.ndim - 2)
        padded = np.pad(values, more, mode="reflect" if values.ndim > 2 else "constant")
        y, x = places.T + self._radius
        return np.stack([padded[y + dy, x + dx] for dy, dx in self._patch], axis=1)

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
        around = ((self._radius,) * 2, (self._radius,) * 2, (0, 0))
        padded = np.pad(current, around, mode="reflect")
        y, x = self.wanted.T
        own = self._around(current, self.wanted)  # (N, P, 3)
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
        y, x = places.T + self._radius
        away = ((places - wanted) / max(self.shape)) ** 2
        cost = (NEAR * len(self._patch) * away.sum(1)).astype(np.float32)
        for k, (dy, dx) in enumerate(self._patch):
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
        for step in self._patch:
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
