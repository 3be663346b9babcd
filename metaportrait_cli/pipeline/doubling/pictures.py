"""The second pass of `upscale`: enhances each face in its steady crop and puts it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice, repeat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.devices import give_freed_memory_back
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.pipeline.compose import resized
from metaportrait_cli.pipeline.doubling.faces_in_clip import FacesInClip
from metaportrait_cli.pipeline.sightings import FRAMES_AHEAD
from metaportrait_cli.progress import Stopwatch
from metaportrait_cli.render.face_stream import (
    SCALE,
    FaceNetwork,
    PatchFeed,
    Tape,
    doubled,
    earliest_needed,
    put_back,
)
from metaportrait_cli.stages import prefetched

FACE_SIDE = 512
"""Least side of the result that shows the face alone."""

KEPT_PIXELS = 2560 * 1440
"""Of a clip's pictures: of larger ones, memory that is kept is in pieces that fit nothing else, a
third of a gigabyte, and saves no time (4096 x 2160: 1 %; 1920 x 1080: 5 %)."""

Image = NDArray[np.uint8]


class WholePicture:
    """Everything, doubled, with all faces put back."""

    def __init__(self, faces: FacesInClip) -> None:
        self.faces = faces
        self.followed: Sequence[int] = range(len(faces.paths))

    def draw(
        self, image: Image, number: int, patches: dict[int, Image], *, strength: float
    ) -> Image:
        """The picture (2H, 2W, 3) for a frame (H, W, 3) and the patches of the faces in it."""
        picture = doubled(image)
        for which, patch in patches.items():
            path = self.faces.paths[which]
            weight = strength * float(path.presence[number - path.start])
            put_back(picture, patch, path.crop(number), weight=weight)
        return picture


class FaceAlone:
    """The crop of the largest face in each frame; where there is none, of the last one's place."""

    def __init__(self, faces: FacesInClip) -> None:
        self.faces = faces
        self._leads = faces.leads()
        self.followed: Sequence[int] = np.unique(self._leads).tolist()
        largest = max(faces.paths[which].side for which in self.followed)
        self._side = max(FACE_SIDE, SCALE * largest)

    def draw(
        self, image: Image, number: int, patches: dict[int, Image], *, strength: float
    ) -> Image:
        """The picture (S, S, 3) for a frame (H, W, 3)."""
        lead = int(self._leads[number])
        path = self.faces.paths[lead]
        frame = min(max(number, path.start), path.stop - 1)
        picture = doubled(path.crop(frame).cut(image, path.side))
        if lead in patches:
            weight = strength * float(path.presence[number - path.start])
            picture = cv2.addWeighted(patches[lead], weight, picture, 1 - weight, 0)
        return resized(picture, self._side)


View = WholePicture | FaceAlone


def pictures(
    clip: Path,
    view: View,
    network: FaceNetwork | None,
    stopwatch: Stopwatch,
    *,
    strength: float = 1.0,
    window: int = 16,
    start: int = 0,
) -> Iterator[Image]:
    """The result's pictures from number `start` on, of one size; plain without a network.

    `strength` and `window` as of `UpscaleOptions`.
    """
    faces = view.faces
    shown = np.bincount(faces.order, minlength=faces.frames)
    until = np.cumsum(shown)
    begin = int(np.searchsorted(until, start, side="right"))  # of the clip's frames
    shown = shown[begin:]
    shown[:1] = until[begin : begin + 1] - start
    chosen = {which: faces.paths[which] for which in view.followed}
    first = begin
    if network is not None:
        first = earliest_needed(chosen, begin, network, window=window)
    with (
        open_frames(clip) as frames,
        closing(
            prefetched(stopwatch.timed("decode", islice(frames, first, None)), depth=FRAMES_AHEAD)
        ) as ahead,
    ):
        tape = Tape(ahead, first=first)
        feed = None
        if network is not None:
            feed = PatchFeed(chosen, tape, network, window=window, start=begin)
        for number, times in enumerate(shown.tolist(), begin):
            with stopwatch("enhance"):
                patches = feed.at(number) if feed else {}
            if frames.width * frames.height > KEPT_PIXELS:
                give_freed_memory_back()
            if times:
                with stopwatch("compose"):
                    picture = view.draw(tape[number], number, patches, strength=strength)
                yield from repeat(picture, times)
                del picture, patches  # large, and the next ones take their time
            tape.release(number + 1)
