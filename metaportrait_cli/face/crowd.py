"""All faces of a clip, each followed through its shot, and a steady crop for each.

Unlike `track`, which keeps one face's landmarks for a whole clip, this keeps of every face only
where it is and how large: 12 bytes a frame and face, which may be held for a clip of hours.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import FACE_CENTRE_Y, FACE_SHARE, LEAST_MARGIN, Crop, smoothstep
from metaportrait_cli.face.detector import CONFIDENCE_STEPS
from metaportrait_cli.face.face import Face, overlap

MOST_FACES = 8
"""Faces followed at a time, the largest first."""
PATIENCE_SECONDS = 0.5
"""A face that isn't found for longer is gone."""
SEARCH_SECONDS = 2.0
"""How often small faces that have come in are looked for."""
LEAST_SECONDS = 0.25
"""What shows for less, within a longer shot, is taken for a mistake of the detector."""
STEADY_SECONDS = 0.3
"""Standard deviation of the kernel that steadies the crop's centre."""
FADE_SECONDS = 0.25
"""How long a face takes to appear or vanish within a shot."""
SIZE_QUANTILE = 0.9
"""The crop frames the face at nearly its largest in the shot."""
SIDE_STEP = 4
LEAST_SIDE = 32


@dataclass(frozen=True)
class FacePath:
    """One face in one shot: a crop of constant side that follows it, frames start ≤ i < stop."""

    start: int
    side: int
    """Pixels of the clip; a multiple of `SIDE_STEP`."""
    corners: NDArray[np.int32]
    """(T, 2): the crop's x0, y0 in each frame."""
    presence: NDArray[np.float32]
    """(T,) in [0, 1]: fades in and out where the face comes or goes within a shot."""

    @property
    def stop(self) -> int:
        """The first frame after the last one."""
        return self.start + len(self.corners)

    def crop(self, frame: int) -> Crop:
        """Where the face is in this frame of the clip."""
        x0, y0 = self.corners[frame - self.start].tolist()
        return Crop(x0, y0, self.side)


@dataclass
class _Track:
    """A face while it is being followed."""

    start: int
    with_shot: bool
    """Whether it was there when the shot began."""
    box: NDArray[np.float32]
    places: array[float] = field(default_factory=lambda: array("f"))
    """Centre x, y and size in each frame, one after the other; NaN where it was missed."""
    missed: int = 0
    doubts: int = 0
    """Frames in which the detector was less than sure, or saw nothing, more than others."""

    def take(self, face: Face | None) -> None:
        self.doubts += 1 if face is None or face.confidence < CONFIDENCE_STEPS[0] else -1
        if face is None:
            self.missed += 1
            self.places.extend((np.nan,) * 3)
            return
        self.missed = 0
        self.box = face.box
        x0, y0, x1, y1 = face.box.tolist()
        self.places.extend(((x0 + x1) / 2, (y0 + y1) / 2, face.size))

    def nearness(self, face: Face) -> float:
        """How likely this is the same face: above 0 is possible, more is better."""
        shared = overlap(self.box, face.box)
        if shared > 0.2:
            return 1 + shared
        # Fast motion leaves no overlap; it changes neither the size nor the place by much.
        size = float(max(self.box[2:] - self.box[:2]))
        apart = float(np.hypot(*(self.box[:2] + self.box[2:] - face.box[:2] - face.box[2:]))) / 2
        return 1 - apart / size if 0.7 < face.size / size < 1.4 else 0.0


class Crowd:
    """Follows all faces of a clip of `width` × `height` pixels; feed every frame once, in order."""

    def __init__(self, *, width: int, height: int, rate: Fraction) -> None:
        self.frames = 0
        self._within = (width, height)
        self._rate = float(rate)
        self._patience = max(1, round(self._rate * PATIENCE_SECONDS))
        self._since_search = 0
        self._followed: list[_Track] = []
        self._paths: list[FacePath] = []
        self._doubtful: list[FacePath] = []
        self._shot_start = 0

    @property
    def hints(self) -> list[NDArray[np.float32]]:
        """Boxes (x0, y0, x1, y1) to look near."""
        return [track.box for track in self._followed]

    @property
    def all_faces(self) -> bool:
        """Small faces count too."""
        return True

    @property
    def lost(self) -> bool:
        """Whether it is time to look for faces everywhere."""
        return self._since_search >= SEARCH_SECONDS * self._rate

    def follow(self, faces: list[Face], *, cut: bool, everywhere: bool) -> None:
        """The next frame's faces; `everywhere`: small ones were looked for too."""
        if cut:
            self._end_shot()
        self._since_search = 0 if everywhere else self._since_search + 1
        for track, face in self._matched(_apart(faces)):
            track.take(face)
        for track in [t for t in self._followed if t.missed >= self._patience]:
            self._retire(track, with_shot=False)
        self.frames += 1

    def paths(self) -> list[FacePath]:
        """All faces followed, by their first frame; ends the clip.

        Doubtful ones count where there are no others: beside a clear face they are bushes.
        """
        self._end_shot()
        return sorted(self._paths or self._doubtful, key=lambda path: path.start)

    def _matched(self, faces: list[Face]) -> list[tuple[_Track, Face | None]]:
        """Each followed track with its face if it has one, new tracks among them."""
        pairs = [(track, face) for track in self._followed for face in faces]
        nearness = [track.nearness(face) for track, face in pairs]
        owners: dict[int, Face] = {}  # by the identity of tracks
        left = list(faces)
        for number in sorted(range(len(pairs)), key=lambda n: -nearness[n]):
            track, face = pairs[number]
            taken = id(track) in owners or all(face is not other for other in left)
            if nearness[number] > 0 and not taken:
                owners[id(track)] = face
                left = [other for other in left if other is not face]
        for face in sorted(left, key=lambda face: -face.size)[: MOST_FACES - len(self._followed)]:
            track = _Track(self.frames, self.frames == self._shot_start, face.box)
            self._followed.append(track)
            owners[id(track)] = face
        return [(track, owners.get(id(track))) for track in self._followed]

    def _end_shot(self) -> None:
        for track in list(self._followed):
            self._retire(track, with_shot=True)
        self._shot_start = self.frames

    def _retire(self, track: _Track, *, with_shot: bool) -> None:
        self._followed = [other for other in self._followed if other is not track]
        if not with_shot:
            del track.places[len(track.places) - 3 * track.missed :]
        brief = len(track.places) / 3 < LEAST_SECONDS * self._rate
        if not brief or (track.with_shot and with_shot):
            paths = self._doubtful if track.doubts > 0 else self._paths
            paths.append(
                face_path(track, within=self._within, rate=self._rate, ends_with_shot=with_shot)
            )


def _apart(faces: list[Face]) -> list[Face]:
    """Without those that lie in another's face: an eye behind a lens can look like one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.size):
        if all(_share_inside(face.box, other.box) < 0.5 for other in kept):
            kept.append(face)
    return kept


def _share_inside(inner: NDArray[np.float32], outer: NDArray[np.float32]) -> float:
    low, high = np.maximum(inner[:2], outer[:2]), np.minimum(inner[2:], outer[2:])
    return float(np.prod(np.maximum(high - low, 0)) / np.prod(inner[2:] - inner[:2]))


def face_path(
    track: _Track, *, within: tuple[int, int], rate: float, ends_with_shot: bool
) -> FacePath:
    """The steady crop of a followed face in a picture of (width, height) pixels."""
    places = np.array(track.places, np.float64).reshape(-1, 3)  # (T, 3)
    found = np.flatnonzero(np.isfinite(places[:, 0]))
    every = np.arange(len(places))
    x, y, size = (np.interp(every, found, column[found]) for column in places.T)
    face = float(np.quantile(size, SIZE_QUANTILE))
    # In a tight picture the crop stays inside it as far as the face allows.
    side = min(face / FACE_SHARE, max(min(within), face * LEAST_MARGIN))
    side = max(LEAST_SIDE, SIDE_STEP * -int(-side // SIDE_STEP))
    corners = np.stack([x - side / 2, y - side * FACE_CENTRE_Y], axis=1)
    corners = _steady(corners, sigma=STEADY_SECONDS * rate)
    room = np.array(within, np.float64) - side
    corners = np.where(room >= 0, np.clip(corners, 0, room), corners)
    fade = max(1.0, FADE_SECONDS * rate)
    presence = np.ones(len(every), np.float32)
    if not track.with_shot:
        presence = np.minimum(presence, smoothstep((every + 1) / fade))
    if not ends_with_shot:
        presence = np.minimum(presence, smoothstep((every[::-1] + 1) / fade))
    return FacePath(track.start, side, _whole(corners), presence)


def _steady(values: NDArray[np.float64], *, sigma: float) -> NDArray[np.float64]:
    """Values (T, C) averaged over time by a Gaussian, without lag; short at the ends."""
    reach = min(int(np.ceil(2.5 * sigma)), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    # At the ends the values go on as they came, mirrored through the last one: the crop doesn't
    # lag behind a face that walks out of the picture.
    before = 2 * values[:1] - values[reach:0:-1]
    after = 2 * values[-1:] - values[-2 : -2 - reach : -1]
    padded = np.concatenate([before, values, after])
    columns = [np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T]
    return np.stack(columns, axis=1)


def _whole(corners: NDArray[np.float64]) -> NDArray[np.int32]:
    """Corners (T, 2) in whole pixels, which stay where they are for less than a pixel's motion."""
    whole = np.empty(corners.shape, np.int32)
    current = np.rint(corners[0])
    for number, corner in enumerate(corners):
        current = np.where(np.abs(corner - current) > 1, np.rint(corner), current)
        whole[number] = current
    return whole
