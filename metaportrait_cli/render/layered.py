"""A portrait in layers: a still background, and before it the person as a sheet in depth.

All that the source doesn't show of the background is completed once, in `Layers.of`; a frame only
moves the sheet and puts it over. While the head hardly turns or moves one flow does it all, as its
network learnt to; the more it turns or moves, the more it is done in layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import Correspondence, CorrespondenceWarp, moved_by
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.head_sheet import (
    HeadFrame,
    HeadSheet,
    Layout,
    face_outside_oval,
    skull_points,
    turned_away,
)
from metaportrait_cli.render.behind.edges import (
    SOFT_FOLD,
    Pixels,
    closed,
    edges,
    grown,
    pixels,
    rim,
    soften,
    straighten,
)
from metaportrait_cli.render.behind.far_side import FarSide
from metaportrait_cli.render.behind.plate import spread
from metaportrait_cli.render.flows import Corrections, LayoutCorrection
from metaportrait_cli.stages import Once

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]

TURN = np.radians((6.0, 14.0))
"""One flow serves up to the first turn away from the source, layers from the second on …"""
AWAY = (0.15, 0.25)
"""… and so with heads as far from where they were, in face widths: one flow leaves ears and
the back of the head behind."""
CERTAIN = 0.95
LEAST_TWICE = 0.02
STILL = 0.012
"""Motion, as a share of the crop's side, from which on what moves is taken from its background"""
REACH = 4
"""Cells around such an edge that its smoothing sees"""
SOME = (0.5, 0.9)
"""Shares of the person nearby from which on it goes on where a turned source's face was"""
NOISE = 24
"""Grey levels by which hair may differ from the person's colours nearby, where it is half seen"""


@dataclass(frozen=True)
class Layers:
    """One source, ready to be moved. Pictures are those of the crop, (S, S, …)."""

    sheet: HeadSheet
    plate: Picture
    """The background, (S, S, 3)"""
    person: Picture
    """What the person adds to it, with the person's share of each pixel, (S, S, 4)"""
    twice: NDArray[np.float32] | None
    """See `face_outside_oval`"""
    instead: Picture | None
    """What the sheet shows there, as `person`: what is around, be it nothing"""

    @classmethod
    def of(
        cls,
        crop: Picture,
        points: Points,
        *,
        alpha: NDArray[np.float32],
        loose: NDArray[np.float32],
        plate: Picture,
    ) -> Layers:
        """Of a crop (S, S, 3) with face points (478, 3), of which the person covers `alpha` (S, S).

        `loose` (S, S) is 0 where nothing may move, see `HeadSheet`; the `plate` (S, S, 3) is what
        is behind the person.
        """
        sheet = HeadSheet(points, alpha, loose, crop)
        width = sheet.head.width
        share = alpha[..., None]
        # What is left of a pixel without the background; but colours of the person, or a place
        # where the matte errs would shine before another background.
        own = spread(crop.astype(np.float32), (alpha > CERTAIN).astype(np.float32))
        person = crop - (1 - share) * plate
        person = np.clip(person, share * (own - NOISE), share * (own + NOISE))
        person = np.where(share > CERTAIN, share * crop, person)
        both = np.rint(np.dstack([person, 255 * share])).clip(0, 255).astype(np.uint8)
        twice = face_outside_oval(points, alpha.shape, width)
        instead = None
        if twice is not None:
            face = np.zeros(alpha.shape, np.uint8)
            oval = points[topology.ring("face_oval"), :2]
            cv2.fillPoly(face, [np.rint(oval).astype(np.int32)], 1)
            around = (1 - face) * (twice < LEAST_TWICE)
            instead = spread(both.astype(np.float32), around.astype(np.float32))
            held = np.maximum(instead[..., 3:], 1) / 255
            instead *= smoothstep((held - SOME[0]) / (SOME[1] - SOME[0])) / held
            instead = np.rint(instead).clip(0, 255).astype(np.uint8)
        return cls(sheet=sheet, plate=plate, person=both, twice=twice, instead=instead)

    def known(self, *, side: float, grid: int) -> NDArray[np.float32]:
        """What networks are told of the source (G, G, 3): the person's share, then
        `HeadSheet.planes`."""
        size = (grid, grid)
        alpha = cv2.resize(self.person[..., 3], size, interpolation=cv2.INTER_AREA)
        share = alpha.astype(np.float32) / 255
        return np.dstack([share, self.sheet.planes(side=side, grid=grid)])

    def composed(self, layout: Layout, *, plate: Picture | None = None) -> Picture:
        """The person as the layout says, before the background: (S, S, 3).

        Of a part of the window if layout and `plate` are, cut between cells.
        """
        plate = self.plate if plate is None else plate
        size = plate.shape[1::-1]
        cell = len(plate) / len(layout.cover)
        covered = layout.cover > 0
        place = closed(layout.place, covered) - np.float32(0.5)
        folded, steep = edges(place, covered, cell=cell)
        folds = pixels(folded, cell)
        wanted = cv2.resize(place, size, interpolation=cv2.INTER_LINEAR)
        person = self._sampled(wanted, layout.around)
        if len(folds[0]):
            person[folds] = self._at_folds(layout, folds, cell=np.float32(cell))
        seen = layout.cover
        beyond = _beyond(place, covered, self.person)
        if beyond is not None:
            seen = seen * beyond
        shown = np.rint(255 * closed(np.minimum(seen, 1), covered)).astype(np.uint8)
        shown = cv2.multiply(cv2.resize(shown, size), rim(covered, size), scale=1 / 255)
        person = cv2.multiply(person, cv2.merge([shown] * 4), scale=1 / 255)
        straighten(person, steep, cell=cell)
        left = 255 - person[..., 3]
        behind = cv2.multiply(plate, cv2.merge([left] * 3), scale=1 / 255)
        frame = np.asarray(cv2.add(behind, cv2.cvtColor(person, cv2.COLOR_BGRA2BGR)), np.uint8)
        rows, columns = pixels(steep, cell)
        seen = person[rows, columns, 3] > 0
        if seen.any():
            soften(frame, (rows[seen], columns[seen]), SOFT_FOLD * cell)
        return frame

    def _sampled(self, place: NDArray[np.float32], around: NDArray[np.float32]) -> Picture:
        """The person (H, W, 4) at places (H, W, 2); beyond an edge it goes on as in a mirror.

        No part of the face is seen twice where the sheet is what is `around` it, (H', W').
        """
        mirrored = cv2.BORDER_REFLECT
        person = cv2.remap(self.person, place, None, cv2.INTER_LINEAR, borderMode=mirrored)
        person = np.asarray(person, np.uint8)
        if self.twice is None or self.instead is None:
            return person
        # Mostly a strip beside the far cheek: only its box is mixed.
        size, cells = place.shape[1::-1], around.shape[::-1]
        rough = cv2.resize(place, cells, interpolation=cv2.INTER_NEAREST)
        rough = cv2.remap(self.twice, rough, None, cv2.INTER_LINEAR) * around
        left, top, wide, high = cv2.boundingRect(np.uint8(grown(rough > LEAST_TWICE)))
        if not wide:
            return person
        x, y = size[0] / cells[0], size[1] / cells[1]
        rows = slice(int(top * y), ceil((top + high) * y))
        box = rows, slice(int(left * x), ceil((left + wide) * x))
        ghost = cv2.remap(self.twice, place[box], None, cv2.INTER_LINEAR)
        ghost = ghost * cv2.resize(around, size, interpolation=cv2.INTER_LINEAR)[box]
        instead = cv2.remap(self.instead, place[box], None, cv2.INTER_LINEAR, borderMode=mirrored)
        person[box] = cv2.blendLinear(instead, person[box], ghost, 1 - ghost)
        return person

    def _at_folds(self, layout: Layout, folds: Pixels, *, cell: np.float32) -> Picture:
        """The person (N, 4) at `folds`, `cell` pixels a cell, where the face begins before what is
        around it, or a part of that before another: a smooth edge, and nothing from between."""
        cells = [np.int64(each / cell) for each in folds]
        box = tuple(slice(max(0, each.min() - REACH), each.max() + REACH + 1) for each in cells)
        covered, place = layout.cover[box] > 0, layout.place[box] - np.float32(0.5)
        before = covered & (layout.around[box] < 0.5)
        behind = covered & ~before
        # Within its cell a place goes on as the picture does: nothing is from between two parts.
        within = [each + 0.5 - cell * (its + 0.5) for each, its in zip(folds, cells, strict=True)]
        within = np.stack(within[::-1], 1).astype(np.float32)
        at = tuple(each - part.start for each, part in zip(cells, box, strict=True))
        front, back = (closed(place, part)[at] + within for part in (before, behind))
        nothing = np.zeros((len(back), 1), np.float32)
        face = self._sampled(front[:, None], nothing)[:, 0]
        rest = self._sampled(back[:, None], nothing + 1)[:, 0]
        outline = rim(before, (round(before.shape[1] * cell), round(before.shape[0] * cell)))
        start = [round(part.start * cell) for part in box]
        share = outline[folds[0] - start[0], folds[1] - start[1]] / np.float32(255)
        share = np.where(grown(behind)[at], share, 1)
        share = np.where(grown(before)[at], share, 0)[:, None]
        return np.rint(rest + share * (face.astype(np.float32) - rest)).astype(np.uint8)


@dataclass(frozen=True)
class Opened:
    """All that a head needs that turns."""

    layers: Layers
    correction: LayoutCorrection
    far_side: FarSide | None


class MovedCrop:
    """A crop (S, S, 3) with its face at `points` (478, 3), moved to driven landmarks.

    `fade` (G, G) as of `CorrespondenceWarp`. `layers` are made when a head first turns; `None` if
    they can't be, and one flow serves for everything.
    """

    def __init__(
        self,
        crop: Picture,
        points: Points,
        *,
        fade: NDArray[np.float32],
        corrections: Corrections,
        layers: Callable[[], Layers | None],
    ) -> None:
        self._crop = crop
        self._points = points
        self._skull = skull_points(points)
        self._width = HeadFrame.of(points).width
        self._fade = fade
        self._warp = CorrespondenceWarp(points, side=crop.shape[0], fade=fade)
        self._corrections = corrections
        self._correction = corrections.of_flow(crop, points, fade)
        self._make_layers = layers
        self.layers = Once(self._with_correction)
        centres = (np.arange(len(fade), dtype=np.float32) + 0.5) * (crop.shape[0] / len(fade))
        self._centres = np.dstack(np.meshgrid(centres, centres)).astype(np.float32)

    def _with_correction(self) -> Opened | None:
        """Made on demand: a second's work that a picture seen from its own side never needs."""
        layers = self._make_layers()
        if layers is None:
            return None
        side, grid = len(self._crop), len(self._fade)
        correction = self._corrections.of_layers(
            self._crop,
            self._points,
            self._fade,
            known=layers.known(side=side, grid=grid),
            plate=layers.plate,
        )
        return Opened(layers, correction, FarSide.of(layers, self._crop))

    def needs_layers(self, driven: Points) -> bool:
        """Whether any of the frames (T, 478, 3) turns or moves the head so far."""
        return any(self._share_of_layers(points) > 0 for points in driven)

    def _share_of_layers(self, driven: Points) -> float:
        before, after = self._points[self._skull], driven[self._skull]
        turn = (turned_away(before, after) - TURN[0]) / (TURN[1] - TURN[0])
        away = np.linalg.norm((after - before)[:, :2], axis=1).mean() / self._width
        return float(smoothstep(max(turn, (away - AWAY[0]) / (AWAY[1] - AWAY[0]))))

    def face(self, driven: Points, box: tuple[slice, slice]) -> tuple[Picture, Correspondence]:
        """A box of the picture, (H, W, 3), moved as landmarks say: right within the face."""
        flow = self._warp(driven)
        return moved_by(self._crop, flow.shift, box=box), flow

    def __call__(self, driven: Points) -> tuple[Picture, Correspondence]:
        """The picture (S, S, 3), and the flow of whatever in it is the source's."""
        share = self._share_of_layers(driven)
        opened = self.layers() if share > 0 else None
        if opened is None:
            flow = self._correction(driven, self._warp(driven))
            return moved_by(self._crop, flow.shift), flow
        layers, side = opened.layers, len(self._crop)
        layout = layers.sheet.layout(driven, side=side, grid=len(self._fade))
        layout = opened.correction(driven, layout)
        shift = layout.shift(side)
        if share < 1:
            flat = self._correction(driven, self._warp(driven)).shift
            # Where the sheet shows nothing, nothing would hold one flow back.
            covered = (layout.cover > 0)[..., None]
            shift = np.where(covered, share * shift + (1 - share) * flat, flat).astype(np.float32)
            layout = replace(layout, place=shift + self._centres)
        plate = layers.plate
        if opened.far_side is not None:
            plate = opened.far_side.before(plate, driven, grid=len(self._fade))
        frame = layers.composed(layout, plate=plate)
        # Where the person stands still, no error of the matte need be seen.
        moves = cv2.magnitude(shift[..., 0], shift[..., 1]) / (STILL * side)
        still = (1 - smoothstep(moves)) * np.minimum(layout.cover, 1)
        rows = np.flatnonzero(still.max(1) > 0)
        if len(rows):  # mostly the shoulders, far down
            part = slice(max(0, (rows[0] - 1) * side // len(still)), side)
            still = cv2.resize(still, (side, side), interpolation=cv2.INTER_LINEAR)
            still = np.ascontiguousarray(still[part])
            frame[part] = cv2.blendLinear(self._crop[part], frame[part], still, 1 - still)
        if share < 1:
            frame = cv2.addWeighted(frame, share, moved_by(self._crop, shift), 1 - share, 0)
        flow = Correspondence(shift, layout.gap, side)
        return np.asarray(frame, np.uint8), flow


def _beyond(
    place: NDArray[np.float32], covered: NDArray[np.bool_], picture: Picture
) -> NDArray[np.float32] | None:
    """How much is seen (G, G) of what comes from beyond the edges of a person (S, S, 4): as much as
    there is at the edge. Where there is none, none begins beyond it. `None` if nothing comes."""
    last = len(picture) - 1
    x, y = cv2.split(place)
    rows, columns = np.nonzero(((cv2.min(x, y) < 0) | (cv2.max(x, y) > last)) & covered)
    if not len(rows):
        return None
    edge = np.rint(place[rows, columns]).astype(np.intp).clip(0, last)
    seen = np.ones(covered.shape, np.float32)
    seen[rows, columns] = picture[edge[:, 1], edge[:, 0], 3] / np.float32(255)
    return seen
