"""Several pictures of one person: each part of the face comes from where it looks most like this.

A renderer moves every picture to the driven landmarks by itself; here the results are put
together. Mouth, eyes, and the head with all around it choose among the pictures by what matters
for them: teeth come from an open mouth, lids from a blink, a turned cheek from a turned head.
Weights change continuously with the driven landmarks, so nothing pops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.source import Source
from metaportrait_cli.motion.likeness import Likeness, Looks, squared_distances
from metaportrait_cli.render.protocol import Driven, Memory, Rendered, Session

# What makes a picture fit for a part, in the units of `Likeness`; found on clips of other people.
HEAD = Likeness(turn=0.1, place=0.2, mouth=0.25, lips=0.25, brows=0.12)
MOUTH = Likeness(turn=0.17, mouth=0.05, lips=0.05)
EYES = Likeness(turn=0.14, brows=0.06, eyes=0.07, gaze=0.07)
MOST_HEADS = 2
MOST_STEADIED = 3
"""Heads of a clip, where one that was used a moment ago still fades out."""
MOST_PARTS = 3
"""Of mouths or eyes that are mixed: the mesh is dense there, so they match to the pixel."""

STEADY_SECONDS = 0.15
"""Over which a clip's heads follow: shoulders would jump as fast as lips and brows move."""

MASK_GRID = 128
FLOW_GRID = 256
# Shares of the face's width. The face's blend ends inside the oval, so that its rim is not seen.
FACE_INSET, FACE_SOFT = 0.05, 0.025
MOUTH_MARGIN, MOUTH_SOFT = 0.07, 0.04
EYES_MARGIN, EYES_SOFT = 0.07, 0.03
HEAD_MARGIN, HEAD_SOFT = 0.35, 0.1


Box = tuple[slice, slice]
"""Rows and columns"""


@dataclass(frozen=True)
class Parts:
    """Weights (G, G) in [0, 1] of the parts of a frame; mouth and eyes don't overlap."""

    mouth: NDArray[np.float32]
    eyes: NDArray[np.float32]
    face: NDArray[np.float32]
    """The face with both"""
    head: NDArray[np.float32]
    """The face with hair and neck"""

    @classmethod
    def of(cls, points: NDArray[np.float32], *, size: int) -> Parts:
        """Of a driven face (478, 3) in pixels of a crop of `size`."""
        places = points[:, :2] * (MASK_GRID / size)
        oval = places[topology.ring("face_oval")]
        width = float(np.ptp(oval[:, 0]))
        lips = places[topology.ring("lips_outer")]
        lids = [places[topology.ring(name)] for name in ("left_eye", "right_eye")]
        face = _soft([oval], margin=-FACE_INSET * width, soft=FACE_SOFT * width)
        mouth = _soft([lips], margin=MOUTH_MARGIN * width, soft=MOUTH_SOFT * width)
        eyes = _soft(lids, margin=EYES_MARGIN * width, soft=EYES_SOFT * width)
        head = _soft([oval], margin=HEAD_MARGIN * width, soft=HEAD_SOFT * width)
        return cls(
            mouth=mouth * face,
            eyes=eyes * (1 - mouth) * face,
            face=face,
            head=np.maximum(head, face),
        )

    @staticmethod
    def box(weights: NDArray[np.float32], *, size: int) -> Box:
        """Rows and columns of a picture (S, S) that hold all weights (G, G) above 0."""
        scale = size / MASK_GRID

        def span(along: NDArray[np.bool_]) -> slice:
            found = np.flatnonzero(along)
            if not len(found):
                return slice(0, 0)
            # Resizing reaches half a cell further.
            last = min(int(np.ceil((found[-1] + 2) * scale)), size)
            return slice(max(0, int((found[0] - 1) * scale)), last)

        there = weights > 0
        return span(np.any(there, axis=1)), span(np.any(there, axis=0))


class OpenOne(Protocol):
    """How a renderer opens a source's first picture alone."""

    def __call__(self, source: Source, *, size: int) -> Session:
        """A session whose pictures are `size` × `size`."""
        ...


def blended(
    open_one: OpenOne, source: Source, *, size: int, rate: Fraction | None = None
) -> Session:
    """One session for a source with all its further pictures; see `Renderer.open`."""
    first = open_one(replace(source, others=()), size=size)
    if not source.others:
        return first
    sessions = [first, *(open_one(other, size=size) for other in alike(source))]
    return ViewsSession(source, sessions, size=size, rate=rate)


def alike(source: Source) -> Sequence[Source]:
    """A source's further pictures in the colours in which they are lent."""
    if source.lends != "face":
        return source.others
    wanted = _colours(source)
    return [_recoloured(other, wanted) for other in source.others]


@dataclass(frozen=True)
class Choice:
    """Weights (T, V) of views in frames, or (V,) in one; those of a frame sum to 1."""

    head: NDArray[np.float32]
    mouth: NDArray[np.float32]
    eyes: NDArray[np.float32]

    def __getitem__(self, frame: int) -> Choice:
        """Of one frame."""
        return Choice(self.head[frame], self.mouth[frame], self.eyes[frame])


class Choices:
    """Says which of a source's views are used; in a clip of some `rate`, heads follow slowly."""

    def __init__(self, source: Source, *, size: int, rate: Fraction | None) -> None:
        self._follow = 1 - math.exp(-1 / (STEADY_SECONDS * float(rate))) if rate else 1.0
        self.last_head: NDArray[np.float32] | None = None
        """All that the next choice depends on beside its own frame"""
        self._reference = source.landmarks(size)
        points = [view.landmarks(size) for view in (source, *source.others)]
        self._looks = Looks.of(np.stack(points), self._reference)

    def __call__(self, driven: NDArray[np.float32]) -> Choice:
        """For consecutive frames' landmarks (T, 478, 3)."""
        looks = Looks.of(driven, self._reference)
        return Choice(
            head=self._steadied(_shares(self._likeness(looks, HEAD), most=MOST_HEADS)),
            mouth=_shares(self._likeness(looks, MOUTH), most=MOST_PARTS),
            eyes=_shares(self._likeness(looks, EYES), most=MOST_PARTS),
        )

    def _likeness(self, looks: Looks, wanted: Likeness) -> NDArray[np.float32]:
        """How alike each view is to the driven faces, (T, V) in (0, 1]; 1 for the nearest."""
        apart = squared_distances(looks.scaled(wanted), self._looks.scaled(wanted))
        return np.exp(apart.min(1, keepdims=True) - apart)

    def _steadied(self, shares: NDArray[np.float32]) -> NDArray[np.float32]:
        """The shares (T, V), following slowly from frame to frame of a clip."""
        if self._follow == 1.0:
            return shares
        steady = np.empty_like(shares)
        for t, now in enumerate(shares):
            last = self.last_head if self.last_head is not None else now
            steady[t] = self.last_head = last + self._follow * (now - last)
        return _shares(steady, most=MOST_STEADIED)


class ViewsSession(Session):
    """Sessions of a source and of its further pictures, in this order, as one."""

    def __init__(
        self,
        source: Source,
        sessions: Sequence[Session],
        *,
        size: int,
        rate: Fraction | None,
    ) -> None:
        self._sessions = sessions
        self._size = size
        self._lends = source.lends
        self._choices = Choices(source, size=size, rate=rate)

    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3); of several flows, none is the whole frame's."""
        choice = self._choices(driven.landmarks)
        used = (choice.head + choice.mouth + choice.eyes) > 0  # (T, V)
        used[:, 0] |= self._lends != "all"
        seen: list[dict[int, NDArray[np.uint8]]] = [{} for _ in driven.landmarks]
        for view, session in enumerate(self._sessions):
            frames = np.flatnonzero(used[:, view])
            if len(frames):
                pictures = session.render(driven.at(frames)).frames
                for t, picture in zip(frames, pictures, strict=True):
                    seen[t][view] = picture
        composed = [
            self._composed(seen[t], Parts.of(points, size=self._size), choice[t])
            for t, points in enumerate(driven.landmarks)
        ]
        return Rendered(np.stack(composed))

    def memory(self) -> Memory:
        """The head's shares, and what the sessions remember."""
        last = self._choices.last_head
        own = {} if last is None else {"head": last}
        for view, session in enumerate(self._sessions):
            own |= {f"{view}.{name}": value for name, value in session.memory().items()}
        return own

    def recall(self, memory: Memory) -> None:
        """See `Session`."""
        self._choices.last_head = memory.get("head")
        for view, session in enumerate(self._sessions):
            start = f"{view}."
            names = [name for name in memory if name.startswith(start)]
            session.recall({name.removeprefix(start): memory[name] for name in names})

    def _composed(
        self, pictures: dict[int, NDArray[np.uint8]], parts: Parts, choice: Choice
    ) -> NDArray[np.uint8]:
        """One frame (S, S, 3) of the views' pictures, by number of the view."""
        frame = self._head(pictures, parts, choice.head)
        box = parts.box(parts.mouth + parts.eyes, size=len(frame))
        mix(frame, {v: p[box] for v, p in pictures.items()}, box, parts, choice)
        return frame

    def _head(
        self, pictures: dict[int, NDArray[np.uint8]], parts: Parts, weights: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """The frame (S, S, 3), a picture of its own, as far as views are lent; else the first's."""
        nearest, *others = [int(v) for v in np.argsort(-weights, kind="stable") if weights[v] > 0]
        frame, mixed = pictures[nearest].copy(), weights[nearest]
        for other in others:
            mixed += weights[other]
            share = np.full((FLOW_GRID,) * 2, weights[other] / mixed, np.float32)
            frame = between(frame, pictures[other], share=share)
        if self._lends == "all":
            return frame
        part = parts.face if self._lends == "face" else parts.head
        inside = cv2.resize(part, frame.shape[:2])
        return cv2.blendLinear(frame, pictures[0], inside, 1 - inside)


def mix(
    frame: NDArray[np.uint8],
    shown: dict[int, NDArray[np.uint8]],
    box: Box,
    parts: Parts,
    choice: Choice,
) -> None:
    """Puts mouth and eyes into a frame (S, S, 3), in place: what views show in its `box`, by number
    of the view."""
    size = len(frame)
    part = frame[box]
    mixed = np.zeros(part.shape, np.float32)
    total = np.zeros(part.shape[:2], np.float32)
    for view, picture in shown.items():
        if choice.mouth[view] + choice.eyes[view] > 0:
            share = choice.mouth[view] * parts.mouth + choice.eyes[view] * parts.eyes
            weight = cv2.resize(share, (size, size))[box]
            mixed += weight[..., None] * picture
            total += weight
    mixed += (1 - total)[..., None] * part
    frame[box] = np.clip(np.rint(mixed), 0, 255)


def _shares(likeness: NDArray[np.float32], *, most: int) -> NDArray[np.float32]:
    """Weights (T, V) of the views, summing to 1; at most `most` of a frame are not 0."""
    weights = likeness.copy()
    if most < weights.shape[1]:
        # Less the largest that is left out, so that views come and go at weight 0.
        weights = np.maximum(weights - np.sort(weights, axis=1)[:, -most - 1, None], 0)
        # All views alike, to the last bit: the first will do.
        weights[:, 0] += weights.sum(1) == 0
    return weights / weights.sum(1, keepdims=True)


def between(
    first: NDArray[np.uint8], second: NDArray[np.uint8], *, share: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The picture on the way from the first (S, S, 3) to the second, where `share` (G, G) of it is
    gone.

    Both are moved towards each other along optical flow before they are mixed: hair that doesn't
    coincide would be seen twice.
    """
    grids = [
        cv2.cvtColor(
            cv2.resize(picture, (FLOW_GRID, FLOW_GRID), interpolation=cv2.INTER_AREA),
            cv2.COLOR_RGB2GRAY,
        )
        for picture in (first, second)
    ]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    back, forth = search.calc(grids[1], grids[0], None), search.calc(grids[0], grids[1], None)
    gone = cv2.merge([share] * 2)
    weight = cv2.resize(share, first.shape[:2], interpolation=cv2.INTER_LINEAR)
    moved = cv2.blendLinear(
        _moved(first, cv2.multiply(gone, back)),
        _moved(second, cv2.multiply(1 - gone, forth)),
        1 - weight,
        weight,
    )
    return np.asarray(moved, np.uint8)


def _moved(picture: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture (S, S, 3) sampled at each pixel's place plus flow (G, G, 2) in cells."""
    size = picture.shape[0]
    places = cv2.resize(flow * np.float32(size / FLOW_GRID), (size, size))
    centres = np.arange(size, dtype=np.float32)
    places[..., 0] += centres[None, :]
    places[..., 1] += centres[:, None]
    return cv2.remap(picture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _soft(
    outlines: Sequence[NDArray[np.float32]], *, margin: float, soft: float
) -> NDArray[np.float32]:
    """Weights (G, G) inside outlines (N, 2) widened (or narrowed) by `margin`; all in cells."""
    mask = np.zeros((MASK_GRID, MASK_GRID), np.uint8)
    for outline in outlines:
        # Points have their origin at a pixel's corner, cv2 draws from its centre.
        cv2.fillPoly(mask, [np.rint((outline - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    reach = max(1, round(abs(margin)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    mask = cv2.dilate(mask, kernel) if margin > 0 else cv2.erode(mask, kernel)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(soft, 0.5))


def _colours(source: Source) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation (3,) of the skin in a picture."""
    crop = source.crop.cut(source.picture, FLOW_GRID)
    parts = Parts.of(source.landmarks(FLOW_GRID), size=FLOW_GRID)
    skin = cv2.resize(parts.face, (FLOW_GRID, FLOW_GRID)) > 0.5
    colours = crop[skin].astype(np.float32)
    return colours.mean(0), colours.std(0) + 1.0


def _recoloured(source: Source, wanted: tuple[NDArray[np.float32], NDArray[np.float32]]) -> Source:
    """The source with its skin's mean and spread made those of another picture."""
    mean, spread = _colours(source)
    levels = np.arange(256, dtype=np.float32)[:, None]
    curves = (levels - mean) * (wanted[1] / spread) + wanted[0]
    curves = np.clip(np.rint(curves), 0, 255).astype(np.uint8)  # (256, 3)
    return replace(source, picture=curves[source.picture, np.arange(3)])
