"""Faces cut out of a clip's frames, enhanced as a stream, and put back at twice the size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import Crop, smoothstep
from metaportrait_cli.face.crowd import FacePath
from metaportrait_cli.media.frames import Frame

Image = NDArray[np.uint8]

SCALE = 2
FEATHER_SHARE = 0.16
"""Width of the mask's ramp as a share of the crop: from the hair inwards to the temples, so that
neither the step in sharpness nor one in colour has an edge."""

LANCZOS_REACH = 4
"""Rows beside a place that `doubled` looks at."""
STRIP_PIXELS = 1 << 20
"""That are put together at a time: masks are four times as large as pictures."""


class FaceNetwork(Protocol):
    """Doubles a stream of pictures of one face."""

    @property
    def pixels_at_once(self) -> int:
        """Of the crops in a batch, at most: what is fast, and fits into memory."""
        ...

    @property
    def reach(self) -> int | None:
        """Frames on either side that a picture depends on; None is all of them."""
        ...

    def working_side(self, side: int) -> int:
        """The side at which it takes a crop of `side` pixels."""
        ...

    def stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[Image]:
        """Batches (n, S, S, 3) → pictures (2S, 2S, 3), as many in all; may lag, loses none."""
        ...


class Tape:
    """Frames of a clip by number, read when they are first asked for and kept until released."""

    def __init__(self, frames: Iterable[Frame], *, first: int = 0) -> None:
        """`frames` begin with number `first`."""
        self._frames = iter(frames)
        self._kept: deque[Image] = deque()
        self._first = first

    def __getitem__(self, number: int) -> Image:
        """The picture (H, W, 3); raises IndexError after the last one."""
        while number >= self._first + len(self._kept):
            frame = next(self._frames, None)
            if frame is None:
                raise IndexError(number)
            self._kept.append(frame.image)
        return self._kept[number - self._first]

    def release(self, number: int) -> None:
        """Lets go of all frames before this one."""
        while self._first < number and self._kept:
            self._kept.popleft()
            self._first += 1


def doubled(image: Image) -> Image:
    """A picture (H, W, 3) at twice its size, by Lanczos' kernel."""
    return cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_LANCZOS4)


class PatchFeed:
    """The enhanced faces of each frame in turn, from one stream a face."""

    def __init__(
        self,
        paths: Mapping[int, FacePath],
        tape: Tape,
        network: FaceNetwork,
        *,
        window: int,
        start: int = 0,
    ) -> None:
        """`paths` by their numbers. `window` crops go through the network at a time, at most.

        `start` is the first frame that will be asked for.
        """
        later = (item for item in paths.items() if item[1].stop > start)
        self._coming = deque(sorted(later, key=lambda item: item[1].start))
        self._start = start
        self._here: dict[int, tuple[FacePath, Iterator[Image]]] = {}
        self._tape = tape
        self._network = network
        self._window = window

    def at(self, frame: int) -> dict[int, Image]:
        """The patches (2 side, 2 side, 3) by path; ask for every frame once, in order."""
        while self._coming and self._coming[0][1].start <= frame:
            number, path = self._coming.popleft()
            first = max(self._start, path.start)
            stream = enhanced_patches(
                path, self._tape, self._network, window=self._window, first=first
            )
            self._here[number] = path, stream
        patches = {number: next(stream) for number, (_, stream) in self._here.items()}
        self._here = {n: item for n, item in self._here.items() if item[0].stop > frame + 1}
        return patches


def earliest_needed(
    paths: Mapping[int, FacePath], start: int, network: FaceNetwork, *, window: int
) -> int:
    """The first frame of the clip that patches from frame `start` on are made of."""
    begun = (path for path in paths.values() if path.start < start < path.stop)
    return min([start, *(_entry(path, start, network, window=window) for path in begun)])


def _batch(path: FacePath, network: FaceNetwork, *, window: int) -> int:
    return max(1, min(window, network.pixels_at_once // network.working_side(path.side) ** 2))


def _entry(path: FacePath, first: int, network: FaceNetwork, *, window: int) -> int:
    """Where the network may enter a path for the same picture `first` as from its start: at a
    batch, for they are divided alike, far enough before."""
    if network.reach is None:
        return path.start
    batch = _batch(path, network, window=window)
    return path.start + max(first - network.reach - path.start, 0) // batch * batch


def enhanced_patches(
    path: FacePath, tape: Tape, network: FaceNetwork, *, window: int, first: int
) -> Iterator[Image]:
    """The face's crops from frame `first` on, enhanced, one a frame: (2 side, 2 side, 3) each.

    `window` crops go through the network at a time, fewer if they are large.
    """
    side = network.working_side(path.side)
    batch = _batch(path, network, window=window)
    entry = _entry(path, first, network, window=window)

    def crop(frame: int) -> Image:
        return path.crop(frame).cut(tape[frame], path.side)

    def batches() -> Iterator[NDArray[np.uint8]]:
        for start in range(entry, path.stop, batch):
            frames = range(start, min(start + batch, path.stop))
            yield np.stack([_scaled(crop(frame), side) for frame in frames])

    for frame, picture in zip(range(entry, path.stop), network.stream(batches()), strict=True):
        if frame < first:
            continue
        if side >= path.side:
            yield _scaled(picture, SCALE * path.side)
        else:
            yield _with_lost_detail(picture, crop(frame), side=side)


def _with_lost_detail(picture: Image, crop: Image, *, side: int) -> Image:
    """The enhanced picture of a crop that had to be shrunk to `side`, with what that took away."""
    size = SCALE * crop.shape[0]
    seen = _scaled(_scaled(crop, side), SCALE * side)
    change = cv2.subtract(picture, seen, dtype=cv2.CV_16S)
    enhanced = np.empty((size, size, 3), np.uint8)
    step = max(1, STRIP_PIXELS // size // SCALE)  # of the crop's rows
    for top in range(0, len(crop), step):
        bottom = min(top + step, len(crop))
        above = min(top, LANCZOS_REACH)
        plain = doubled(crop[top - above : bottom + LANCZOS_REACH])
        rows = slice(SCALE * top, SCALE * bottom)
        cv2.add(
            _stretched(change, rows, size),
            plain[SCALE * above :][: SCALE * (bottom - top)],
            dst=enhanced[rows],
            dtype=cv2.CV_8U,
        )
    return enhanced


def _stretched(change: NDArray[np.int16], rows: slice, size: int) -> NDArray[np.int16]:
    """These rows of a square enlarged to `size`."""
    share = len(change) / size
    place = np.array([[share, 0, share / 2], [0, share, share / 2 + rows.start * share]])
    place[:, 2] -= 0.5
    return cv2.warpAffine(
        change,
        place,
        (size, rows.stop - rows.start),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def put_back(picture: Image, patch: Image, crop: Crop, *, weight: float) -> None:
    """Blends a patch (2 side, 2 side, 3) into the doubled picture (2H, 2W, 3), in place.

    `crop` is its place in the clip's own pixels, `weight` in [0, 1] how much of it shows.
    """
    height, width = picture.shape[:2]
    place = Crop(SCALE * crop.x0, SCALE * crop.y0, SCALE * crop.side)
    rows, columns, patch_rows, patch_columns = place.inside(width, height)
    ramps = _ramp(place.y0, place.side, height), _ramp(place.x0, place.side, width)
    across = ramps[1][patch_columns] * np.float32(weight)
    step = max(1, STRIP_PIXELS // max(len(across), 1))
    for top in range(0, rows.stop - rows.start, step):
        here = slice(rows.start + top, min(rows.start + top + step, rows.stop))
        there = slice(patch_rows.start + top, patch_rows.start + top + here.stop - here.start)
        mask = np.outer(ramps[0][there], across)
        picture[here, columns] = cv2.blendLinear(
            np.ascontiguousarray(patch[there, patch_columns]),
            np.ascontiguousarray(picture[here, columns]),
            mask,
            1 - mask,
        )


def _ramp(start: int, side: int, length: int) -> NDArray[np.float32]:
    """Weights (side,) along one axis of a patch at `start` in a picture `length` pixels long.

    They fall to 0 at the patch's ends, the more steeply the nearer that end is to the picture's,
    and not at all where both coincide: there is nothing to blend with.
    """
    places = np.arange(side, dtype=np.float32) + 0.5
    widest = FEATHER_SHARE * side
    low = min(widest, max(start, 0))
    high = min(widest, max(length - start - side, 0))
    weights = np.ones(side, np.float32)
    if low:
        weights *= smoothstep(places / low)
    if high:
        weights *= smoothstep((side - places) / high)
    return weights


def _scaled(image: Image, side: int) -> Image:
    if image.shape[0] == side:
        return image
    method = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, (side, side), interpolation=method)
