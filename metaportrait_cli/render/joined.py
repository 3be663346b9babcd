"""Several pictures of one person as one, joined before mouth and eyes are repainted.

Every place of the head comes from the views that show it best: those whose head is turned most
alike, and of them the one that is stretched least there. Where one view will do, one is moved;
views that lend mouth or eyes alone move these alone; and what is joined is repainted once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.regions import REGIONS, OwnRegions
from metaportrait_cli.face.source import Source
from metaportrait_cli.render.mouths.shown import ShownMouth
from metaportrait_cli.render.protocol import (
    Driven,
    Frames,
    Memory,
    Rendered,
    Repainting,
    Session,
    Warped,
)
from metaportrait_cli.render.views import FLOW_GRID, Box, Choice, Choices, Parts, between, mix
from metaportrait_cli.stages import overlapped, side_by_side

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]

STRETCH_POWER = 8.0
"""How much a view's weight falls where it is stretched: with this power of its scale"""
LEAST_SCALE = 0.1
SCALE_CELLS = 64
"""Cells a side in which the scale of motion is looked at"""
SMOOTH = 2.0
"""… and over how many of them weights are smoothed"""
SEEN = 0.03
"""The least share of a view anywhere, that is worth moving it"""


class Joinable(Warped, Session, Protocol):
    """One picture, ready to be moved and repainted."""

    @property
    def regions(self) -> Callable[[], Repainting | None]:
        """Gives what repaints its mouth and eyes, if anything does."""
        ...


@dataclass(frozen=True)
class _Moved:
    """Frames (T, S, S, 3) of a window that aren't repainted yet, with their landmarks."""

    frames: Frames
    points: Points
    gaps: Sequence[Points]
    choice: Choice
    last_head: NDArray[np.float32] | None
    """What the choice after the last of them depends on"""


class JoinedSession(Session):
    """A source and its further pictures, in this order."""

    def __init__(
        self, source: Source, views: Sequence[Joinable], *, size: int, rate: Fraction | None
    ) -> None:
        self._views = views
        self._size = size
        self._lends = source.lends
        self._choices = Choices(source, size=size, rate=rate)
        self._last_head: NDArray[np.float32] | None = None
        faces = (source.landmarks(size), *(view.landmarks(size) for view in source.others))
        self._own = [OwnRegions(v.crop, points) for v, points in zip(views, faces, strict=True)]
        self._mouths = [ShownMouth.of(v.crop, at) for v, at in zip(views, faces, strict=True)]

    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3); of several flows, none is the whole frame's."""
        return self._repainted(self._moved(driven))

    def stream(self, windows: Iterable[Driven]) -> Generator[Rendered, None, None]:
        """See `Session`: while some are repainted the next ones are moved."""
        with closing(overlapped(windows, self._moved, self._repainted)) as pictures:
            yield from pictures

    def _moved(self, driven: Driven) -> _Moved:
        """Before mouth and eyes are repainted."""
        points = driven.landmarks
        choice = self._choices(points)
        whole = choice.head > 0  # (T, V)
        if self._lends != "all":
            whole[:, 0] = True
        if self._lends == "face":
            whole[:, 1:] = False
        changes: dict[tuple[int, int], NDArray[np.float32] | None] = {}
        for number, view in enumerate(self._views):
            frames = np.flatnonzero(whole[:, number])
            if len(frames):
                found = view.changes(points[frames])
                changes |= {(t, number): c for t, c in zip(frames.tolist(), found, strict=True)}

        def joined(t: int) -> tuple[Picture, Points]:
            own = {v: changes[t, v] for v in np.flatnonzero(whole[t]).tolist()}
            return self._joined(points[t], choice[t], own)

        pictures, gaps = zip(*side_by_side(joined, range(len(points))), strict=True)
        return _Moved(np.stack(pictures), points, gaps, choice, self._choices.last_head)

    def _repainted(self, moved: _Moved) -> Rendered:
        frames, points, choice = moved.frames, moved.points, moved.choice
        if (regions := self._views[0].regions()) is not None:
            own = [self._own_regions(choice[t]) for t in range(len(points))]
            shown = [ShownMouth.mixed(self._mouths, shares) for shares in choice.mouth]
            regions.repaint(frames, points, moved.gaps, own, shown)
        self._last_head = moved.last_head
        return Rendered(frames)

    def _own_regions(self, choice: Choice) -> OwnRegions:
        """What the views that are used show of mouth and eyes themselves."""
        shares = {r: choice.mouth if r == "mouth" else choice.eyes for r in REGIONS}
        return OwnRegions.mixed(self._own, shares)

    def expect_turns(self) -> None:
        """Of the first picture, unless others are moved as a whole in its place."""
        if self._lends != "all":
            self._views[0].expect_turns()

    def memory(self) -> Memory:
        """The head's shares, and what the first picture's regions remember."""
        own = {} if self._last_head is None else {"head": self._last_head}
        return own | {f"0.{name}": value for name, value in self._views[0].memory().items()}

    def recall(self, memory: Memory) -> None:
        """See `Session`."""
        self._choices.last_head = self._last_head = memory.get("head")
        self._views[0].recall({k.removeprefix("0."): v for k, v in memory.items() if k != "head"})

    def _joined(
        self,
        points: Points,
        choice: Choice,
        changes: Mapping[int, NDArray[np.float32] | None],
    ) -> tuple[Picture, Points]:
        """One frame (S, S, 3) before it is repainted, and the part of its mouth (N, 2) that isn't
        shown; `changes` are those of the light of the views that are moved as a whole."""
        parts = Parts.of(points, size=self._size)
        moved = {v: self._views[v].moved(points, change) for v, change in changes.items()}
        box = parts.box(parts.mouth + parts.eyes, size=self._size)
        shown = {v: picture[box] for v, (picture, _) in moved.items()}
        gaps = {v: flow.mouth_gap for v, (_, flow) in moved.items()}
        if self._lends == "face":
            whole = parts.box(parts.face + parts.mouth + parts.eyes, size=self._size)
            used = np.flatnonzero(choice.head)
            faces = {v: self._views[v].face(points, whole) for v in used.tolist() if v}
            frame = self._with_faces(moved[0][0], faces, whole, parts, choice.head)
            part = tuple(
                slice(own.start - all_.start, own.stop - all_.start)
                for own, all_ in zip(box, whole, strict=True)
            )
            shown |= {v: picture[part] for v, (picture, _) in faces.items()}
            gaps |= {v: gap for v, (_, gap) in faces.items()}
        else:
            frame = self._head(moved, parts, choice.head)
        for view in np.flatnonzero(choice.mouth + choice.eyes).tolist():
            if view not in shown:
                shown[view], gaps[view] = self._views[view].face(points, box)
        mix(frame, shown, box, parts, choice)
        return frame, gaps[int(choice.mouth.argmax())]

    def _head(
        self,
        moved: Mapping[int, tuple[Picture, Correspondence]],
        parts: Parts,
        weights: NDArray[np.float32],
    ) -> Picture:
        """The frame (S, S, 3), a picture of its own, as far as views are lent; else the first's."""
        order = [int(v) for v in np.argsort(-weights, kind="stable") if weights[v] > 0]
        shares = _weights({v: moved[v][1] for v in order}, weights)
        frame, mixed = moved[order[0]][0].copy(), shares[order[0]]
        for other in order[1:]:
            mixed = mixed + shares[other]
            share = np.asarray(shares[other] / mixed, np.float32)
            if share.max() > SEEN:
                frame = between(frame, moved[other][0], share=share)
        if self._lends == "all":
            return frame
        inside = cv2.resize(parts.head, frame.shape[:2])
        return cv2.blendLinear(frame, moved[0][0], inside, 1 - inside)

    @staticmethod
    def _with_faces(
        first: Picture,
        faces: Mapping[int, tuple[Picture, Points]],
        box: Box,
        parts: Parts,
        weights: NDArray[np.float32],
    ) -> Picture:
        """The first picture's frame (S, S, 3) with the other views' faces, moved in its `box`."""
        frame = first.copy()
        inside = cv2.resize(parts.face, frame.shape[:2])[box]
        left = np.float32(1 - weights[0])
        for view, (face, _) in faces.items():
            share = inside * np.float32(weights[view] / max(1e-6, left))
            frame[box] = cv2.blendLinear(face, frame[box], share, 1 - share)
        return frame


def _weights(
    flows: Mapping[int, Correspondence], weights: NDArray[np.float32]
) -> dict[int, NDArray[np.float32]]:
    """Each view's weight (FLOW_GRID, FLOW_GRID), not scaled: less where it is stretched."""
    if len(flows) == 1:
        return {view: np.ones((FLOW_GRID,) * 2, np.float32) for view in flows}
    found = {}
    for view, flow in flows.items():
        scale = np.maximum(_scale(flow), LEAST_SCALE) ** STRETCH_POWER
        scale = cv2.GaussianBlur(scale, (0, 0), SMOOTH)
        weight = np.asarray(weights[view] * scale, np.float32)
        found[view] = cv2.resize(weight, (FLOW_GRID,) * 2, interpolation=cv2.INTER_LINEAR)
    return found


def _scale(flow: Correspondence) -> NDArray[np.float32]:
    """How large cells (SCALE_CELLS, SCALE_CELLS) are in the view, in pixels a pixel.

    It is at most 1, and 0 where they are turned over.
    """
    side = flow.side
    shift = cv2.resize(flow.shift, (SCALE_CELLS,) * 2, interpolation=cv2.INTER_AREA)
    step = 2 * side / SCALE_CELLS
    shift = cv2.copyMakeBorder(shift, 1, 1, 1, 1, cv2.BORDER_REPLICATE) / np.float32(step)
    along = shift[1:-1, 2:] - shift[1:-1, :-2]
    down = shift[2:, 1:-1] - shift[:-2, 1:-1]
    area = (1 + along[..., 0]) * (1 + down[..., 1]) - along[..., 1] * down[..., 0]
    return np.sqrt(area.clip(0, 1)).astype(np.float32)
