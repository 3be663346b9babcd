"""The renderer that moves the source's own pixels; networks of flow, mouth and eyes may help it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence, moved_by
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.head_sheet import HeadFrame
from metaportrait_cli.face.hidden_side import HiddenSide
from metaportrait_cli.face.matte import Segmenter, matte
from metaportrait_cli.face.mouth_inside import MouthInside
from metaportrait_cli.face.regions import Kind
from metaportrait_cli.face.source import Source
from metaportrait_cli.render.behind.plate import background, revealed
from metaportrait_cli.render.flows import Corrections, Uncorrected
from metaportrait_cli.render.joined import JoinedSession
from metaportrait_cli.render.layered import Layers, MovedCrop
from metaportrait_cli.render.opening import Rendering
from metaportrait_cli.render.protocol import Driven, Frames, Memory, Rendered, Repainting, Session
from metaportrait_cli.render.views import alike
from metaportrait_cli.stages import Once, aside, foreseen, overlapped, side_by_side
from metaportrait_cli.weights import bundled_path

if TYPE_CHECKING:
    from metaportrait_cli.networks.regions import RegionNetwork
    from metaportrait_cli.render.regions import OpenedRegions, RegionRefiner
    from metaportrait_cli.render.shading.light import Shading, SkinLight


Notice = Callable[[str], None]
SEGMENTER = "selfie_segmenter"
UNCORRECTED = Uncorrected()
FORESEEN = 8
"""Windows of landmarks that are looked at before they are drawn: what they need is made in time"""


def without_weights(on_notice: Notice) -> Rendering:
    """See `named`."""
    return Rendering(WarpRenderer(on_notice=on_notice))


class WarpRenderer:
    """Moves the source's own pixels; by itself it invents only a dark mouth and the background.

    `corrected` puts the flow right that landmarks alone give, `shading` the light on the skin.
    """

    GRID = 256
    FADE_SHARE = 0.12
    LOOSE_SHARE = 0.1
    AROUND = 0.2
    fixed_size = None
    keeps_detail = True

    def __init__(
        self,
        corrected: Corrections = UNCORRECTED,
        *,
        shading: Shading | None = None,
        on_notice: Notice = lambda _text: None,
    ) -> None:
        self._corrected = corrected
        self._shading = shading
        self._on_notice = on_notice

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> Session:
        """Cuts the crops and prepares their flows."""
        whole = (source, *source.others) if source.others else ()

        def opened(source: Source, *, size: int) -> WarpSession:
            return self.open_warp(source, size=size, rate=rate, beside=whole)

        first = opened(replace(source, others=()), size=size)
        first.regions()
        if not source.others:
            return first
        views = [first, *(opened(other, size=size) for other in alike(source))]
        return JoinedSession(source, views, size=size, rate=rate)

    def open_warp(
        self,
        source: Source,
        *,
        size: int,
        rate: Fraction | None = None,
        beside: Sequence[Source] = (),
    ) -> WarpSession:
        """The source's first picture alone; those `beside` may show what is behind its person."""
        height, width = source.picture.shape[:2]
        fade = border_fade(
            source.crop, width=width, height=height, size=self.GRID, share=self.FADE_SHARE
        )
        landmarks = source.landmarks(size)
        crop = source.crop.cut(source.picture, size)
        return WarpSession(
            crop,
            move=MovedCrop(
                crop,
                landmarks,
                fade=fade,
                corrections=self._corrected,
                layers=lambda: self._layers(source, crop, landmarks, beside),
            ),
            hidden=HiddenSide(landmarks, crop=crop, grid=self.GRID),
            mouth=MouthInside(crop, landmarks),
            light=self._shading.open(crop, landmarks) if self._shading is not None else None,
            regions=Once(partial(self._regions, crop, landmarks, rate)),
        )

    def _layers(
        self,
        source: Source,
        crop: NDArray[np.uint8],
        landmarks: NDArray[np.float32],
        beside: Sequence[Source],
    ) -> Layers | None:
        """Of the crop (S, S, 3) with its face at (478, 3); `None` where no person is told apart."""
        alpha = self._alpha(source, source.crop, size=len(crop))
        if alpha is None:
            self._on_notice(
                f"{source.path.name}: the person can't be told from the background, which will"
                " bend with turns of the head"
            )
            return None
        height, width = source.picture.shape[:2]
        loose = border_fade(
            source.crop,
            width=width,
            height=height,
            size=len(crop),
            share=self.LOOSE_SHARE,
            at_edges=False,
        )
        others = self._others(source, beside, size=len(crop))
        face_width = HeadFrame.of(landmarks).width
        shown, hidden = revealed(crop, alpha, others, width=face_width)
        plate = background(shown, hidden, width=face_width)
        return Layers.of(crop, landmarks, alpha=alpha, loose=loose, plate=plate)

    def _others(
        self, source: Source, beside: Sequence[Source], *, size: int
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """The same window (S, S, 3) of other pictures, and what of it (S, S) the person covers."""
        for view in beside:
            if view.picture is source.picture:
                continue
            # Pictures of one clip; or the windows of a portrait's views, if all lend everything.
            alike = view.picture.shape == source.picture.shape
            window = source.crop if alike else view.crop
            alpha = self._alpha(view, window, size=size)
            if alpha is not None:
                yield window.cut(view.picture, size), alpha

    def _alpha(self, source: Source, window: Crop, *, size: int) -> NDArray[np.float32] | None:
        """How much of each pixel of the window (S, S) is the person."""
        height, width = source.picture.shape[:2]
        # Shoulders are told best with what is around the crop.
        part = window.widened(self.AROUND, within=(width, height))
        origin = np.array([part[1].start, part[0].start, 0], np.float32)
        segmenter = Segmenter(bundled_path(SEGMENTER))
        alpha = matte(
            source.picture[part],
            source.face.points - origin,
            segmenter,
            strangers=[face.points - origin for face in source.strangers],
        )
        if alpha is None:
            return None
        whole = np.zeros((height, width), np.float32)
        whole[part] = alpha
        return np.asarray(window.cut(whole, size), np.float32).clip(0, 1)

    def _regions(
        self, crop: NDArray[np.uint8], landmarks: NDArray[np.float32], rate: Fraction | None
    ) -> OpenedRegions | None:
        """What repaints mouth and eyes of the crop (S, S, 3) with its face at (478, 3)."""
        return None


class RefinedWarpRenderer(WarpRenderer):
    """The same with mouth and eyes repainted by networks, starting from the dark mouth."""

    def __init__(
        self,
        refiner: RegionRefiner,
        corrected: Corrections = UNCORRECTED,
        *,
        shading: Shading | None = None,
        on_notice: Notice = lambda _text: None,
    ) -> None:
        super().__init__(corrected, shading=shading, on_notice=on_notice)
        self._refiner = refiner

    @property
    def networks(self) -> Mapping[Kind, RegionNetwork]:
        """By kind of region."""
        return self._refiner.networks

    @property
    def device(self) -> str:
        """Where the networks are."""
        return self._refiner.device

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> Session:
        """As the warp alone; all pictures of a person tell of their teeth."""
        if not source.others:
            return super().open(source, size=size, rate=rate)
        pictures = (
            (view.crop.cut(view.picture, size), view.landmarks(size))
            for view in (source, *source.others)
        )
        knowing = RefinedWarpRenderer(
            self._refiner.of_person(pictures),
            self._corrected,
            shading=self._shading,
            on_notice=self._on_notice,
        )
        with self.for_many():
            return super(RefinedWarpRenderer, knowing).open(source, size=size, rate=rate)

    def for_many(self) -> AbstractContextManager[None]:
        """See `Adaptable`."""
        return self._refiner.for_many()

    def _regions(
        self, crop: NDArray[np.uint8], landmarks: NDArray[np.float32], rate: Fraction | None
    ) -> OpenedRegions | None:
        return self._refiner.open(crop, landmarks, rate=rate)


@dataclass(frozen=True)
class WarpSession(Session):
    """One source crop (S, S, 3), moved."""

    crop: NDArray[np.uint8]
    move: MovedCrop
    hidden: HiddenSide
    mouth: MouthInside
    light: SkinLight | None
    regions: Callable[[], OpenedRegions | None]
    """What repaints mouth and eyes, looked at when it is first needed"""

    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3) and the flows they were made by."""
        frames, flows = self._moved(driven)
        self._repaint(frames, driven, [flow.mouth_gap for flow in flows])
        return Rendered(frames, flows)

    def stream(self, windows: Iterable[Driven]) -> Generator[Rendered, None, None]:
        """The pictures alone; while some are repainted the next ones are moved, for neither keeps
        all cores busy."""

        def moved(driven: Driven) -> tuple[Frames, Driven, list[NDArray[np.float32]]]:
            frames, flows = self._moved(driven)
            return frames, driven, [flow.mouth_gap for flow in flows]

        def repainted(moved: tuple[Frames, Driven, list[NDArray[np.float32]]]) -> Rendered:
            self._repaint(*moved)
            return Rendered(moved[0])

        with aside() as meanwhile:
            coming = foreseen(windows, self._foresee(meanwhile), depth=FORESEEN)
            with closing(overlapped(coming, moved, repainted)) as pictures:
                yield from pictures

    def _foresee(self, meanwhile: Executor) -> Callable[[Driven], None]:
        """Has layers made for frames to come, while those before them are moved."""
        begun = False

        def look(driven: Driven) -> None:
            nonlocal begun
            if not begun and self.move.needs_layers(driven.landmarks):
                begun = True
                meanwhile.submit(self.move.layers)

        return look

    def _moved(self, driven: Driven) -> tuple[Frames, tuple[Correspondence, ...]]:
        """Before mouth and eyes are repainted."""
        points = driven.landmarks
        changes = self.changes(points)

        def moved(number: int) -> tuple[NDArray[np.uint8], Correspondence]:
            return self.moved(points[number], changes[number])

        pictures, flows = zip(*side_by_side(moved, range(len(points))), strict=True)
        return np.stack(pictures), flows

    def _repaint(self, frames: Frames, driven: Driven, gaps: Sequence[NDArray[np.float32]]) -> None:
        """In place."""
        if (regions := self.regions()) is not None:
            regions.repaint(frames, driven.landmarks, gaps)

    def expect_turns(self) -> None:
        """See `Session`."""
        self.move.layers()

    def memory(self) -> Memory:
        """Of the regions."""
        regions = self.regions()
        return {} if regions is None else regions.memory()

    def recall(self, memory: Memory) -> None:
        """See `Session`."""
        if (regions := self.regions()) is not None:
            regions.recall(memory)

    def warped(self, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The crop (S, S, 3) moved to driven landmarks (478, 3), its mouth dark where it shows
        nothing, before the regions are repainted; and that part of the mouth (N, 2)."""
        frame, flow = self.moved(points, *self.changes(points[None]))
        return frame, flow.mouth_gap

    def changes(self, points: NDArray[np.float32]) -> Sequence[NDArray[np.float32] | None]:
        """See `Warped`."""
        return [None] * len(points) if self.light is None else list(self.light.changes(points))

    def face(
        self, points: NDArray[np.float32], box: tuple[slice, slice]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """See `Warped`."""
        frame, flow = self.move.face(points, box)
        rows, columns = box
        self.mouth.fill(frame, flow.mouth_gap - np.array([columns.start, rows.start], np.float32))
        return frame, flow.mouth_gap

    def repainted_by(self, networks: Mapping[Kind, RegionNetwork]) -> Repainting | None:
        """What other networks make of this source's warps; `None` where nothing is repainted."""
        regions = self.regions()
        return None if regions is None else regions.by(networks)

    def moved(
        self, points: NDArray[np.float32], change: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.uint8], Correspondence]:
        """The moved crop, and its flow; `change` (G, G) is that of the light on the source."""
        frame, flow = self.move(points)
        frame = self._with_hidden_side(frame, points)
        if self.light is not None and change is not None:
            frame = self.light.shine(frame, change, flow, points)
        self.mouth.fill(frame, flow.mouth_gap)
        return frame, flow

    def _with_hidden_side(
        self, frame: NDArray[np.uint8], points: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """The frame (S, S, 3) with what the source hides of the face taken from its other side."""
        fill = self.hidden.fill(points)
        if fill is None:
            return frame
        weight = cv2.resize(fill.weight, frame.shape[:2], interpolation=cv2.INTER_LINEAR)
        other = moved_by(self.crop, fill.shift) * self.hidden.light
        other = np.clip(np.rint(other), 0, 255).astype(np.uint8)
        return cv2.blendLinear(other, frame, weight, 1 - weight)
