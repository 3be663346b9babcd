"""One face followed through a clip: which face, which shot, and what to do where none was found.

A track lives in a temporary file, a fixed-size record a frame, so that an hour of video costs no
more memory than a second of it.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.face import BLENDSHAPE_COUNT, Face, overlap
from metaportrait_cli.face.topology import POINTS


class State(IntEnum):
    """Where a frame's landmarks come from."""

    FOUND = 0
    INTERPOLATED = 1  # between the frames around a short gap
    HELD = 2  # the nearest found frame of the shot, over a long gap or at its ends
    ABSENT = 3  # no face in the whole shot: the source rests


RECORD = np.dtype(
    [
        ("time", "<f8"),  # seconds since the first frame
        ("shot", "<i4"),
        ("state", "u1"),
        ("confidence", "<f4"),
        ("points", "<f4", (POINTS, 3)),
        ("blendshapes", "<f4", (BLENDSHAPE_COUNT,)),
    ]
)
# Fields that are small enough to be held for a whole clip.
LIGHT_FIELDS = ("time", "shot", "state", "confidence")
_LIGHT = np.dtype([(name, RECORD[name]) for name in LIGHT_FIELDS])
CHUNK = 256
INTERPOLATED_SECONDS = 0.5
EASE_SECONDS = 0.25


class MotionTrack:
    """Landmarks of one face over a clip of `width` × `height` pixels at a constant `rate`."""

    def __init__(self, *, width: int, height: int, rate: Fraction) -> None:
        self.width = width
        self.height = height
        self.rate = rate
        self._file = tempfile.TemporaryFile(prefix="metaportrait-track-")  # noqa: SIM115
        self._count = 0
        self._place = threading.Lock()  # several threads may read

    def __len__(self) -> int:
        return self._count

    def append(self, records: NDArray[np.void]) -> None:
        """Adds records (n,) of dtype `RECORD` at the end."""
        self.write(self._count, records)
        self._count += len(records)

    def read(self, start: int, stop: int) -> NDArray[np.void]:
        """Records start ≤ i < stop, clipped to the track: (n,) of dtype `RECORD`."""
        start, stop = max(start, 0), min(stop, self._count)
        with self._place:
            self._file.seek(start * RECORD.itemsize)
            data = self._file.read(max(stop - start, 0) * RECORD.itemsize)
        return np.frombuffer(data, RECORD).copy()

    def write(self, start: int, records: NDArray[np.void]) -> None:
        """Replaces the records from `start` on."""
        try:
            self._file.seek(start * RECORD.itemsize)
            self._file.write(np.ascontiguousarray(records, RECORD).tobytes())
            self._file.flush()
        except OSError as error:  # a full disk; the file has no name to tell
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error

    def chunks(self) -> Iterator[NDArray[np.void]]:
        """The whole track in order, `CHUNK` records at a time."""
        for start in range(0, self._count, CHUNK):
            yield self.read(start, start + CHUNK)

    def light(self) -> NDArray[np.void]:
        """Time, shot, state and confidence of every frame: (T,) with `LIGHT_FIELDS`."""
        light = np.empty(len(self), _LIGHT)
        start = 0
        for chunk in self.chunks():
            for name in LIGHT_FIELDS:
                light[name][start : start + len(chunk)] = chunk[name]
            start += len(chunk)
        return light

    @property
    def closed(self) -> bool:
        """Whether it can no longer be read."""
        return self._file.closed

    def close(self) -> None:
        """Deletes the temporary file."""
        self._file.close()


class CutDetector:
    """Tells a cut from motion by the change of a thumbnail, relative to the change just before."""

    SIZE = (32, 32)
    SAMPLES = 256  # rows and columns of the picture that are looked at, about: enough for 32
    LEAST_CHANGE = 0.1  # of full scale; a talking head in front of a still wall stays below 0.05

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._usual = 0.0

    def is_cut(self, image: NDArray[np.uint8]) -> bool:
        """Whether this RGB picture begins a new shot; feed every frame once, in order."""
        height, width = image.shape[:2]
        step = max(1, min(height, width) // self.SAMPLES)
        size = (-(-width // step), -(-height // step))
        sampled = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
        small = cv2.resize(sampled, self.SIZE, interpolation=cv2.INTER_AREA)
        thumbnail = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        last, self._last = self._last, thumbnail
        if last is None:
            return False
        change = float(np.abs(thumbnail - last).mean())
        cut = change > max(self.LEAST_CHANGE, 4 * self._usual)
        self._usual = 0.0 if cut else 0.8 * self._usual + 0.2 * change
        return cut


@dataclass(frozen=True)
class FaceChoice:
    """Which of several faces: the largest (`None`), or the n-th from the left, counted from 1."""

    number: int | None = None
    every: bool = False
    """All of them, where a source is asked about; one at a time, the largest"""

    @classmethod
    def parse(cls, text: str, *, field: str = "face") -> FaceChoice:
        """From the text of an option called `field`: `largest`, a number from 1, or `all` of a
        source's."""
        if text == "largest":
            return cls()
        if text == "all" and field == "source_face":
            return cls(every=True)
        if text.isdecimal() and int(text) >= 1:
            return cls(int(text))
        words = "'largest', 'all'" if field == "source_face" else "'largest'"
        raise UsageError(f"`{field}` {text!r} is neither {words} nor a number from 1 (leftmost)")

    def pick(self, faces: list[Face]) -> Face | None:
        """The chosen face of a picture (faces come left to right); `None` if it isn't there."""
        if self.number is not None:
            return faces[self.number - 1] if self.number <= len(faces) else None
        return max(faces, key=lambda face: face.size, default=None)


LARGEST_FACE = FaceChoice()


class FaceFollower:
    """Keeps to one face by overlap with where it was; chooses anew after a cut or a long absence.

    `hint` is the last box (x0, y0, x1, y1), for the detector to look near; `None` before the first.
    """

    NEW_CHOICE_SECONDS = 0.5

    def __init__(self, choice: FaceChoice, *, rate: Fraction) -> None:
        self._choice = choice
        self._patience = max(1, round(float(rate) * self.NEW_CHOICE_SECONDS))
        self._missed = 0
        self.hint: NDArray[np.float32] | None = None

    def follow(self, faces: list[Face], *, cut: bool) -> Face | None:
        """The followed face among those of the next frame, or `None`."""
        if cut:
            self.hint = None
        face = self._next(faces)
        if face is None:
            self._missed += 1
        else:
            self._missed = 0
            self.hint = face.box
        return face

    @property
    def hints(self) -> list[NDArray[np.float32]]:
        """Boxes (x0, y0, x1, y1) to look near: the last one, once there is one."""
        return [] if self.hint is None else [self.hint]

    @property
    def all_faces(self) -> bool:
        """Whether small faces count too: where they are numbered from the left."""
        return self._choice.number is not None

    @property
    def lost(self) -> bool:
        """Whether it is time to look for the face everywhere."""
        return self.hint is None or (self._missed > 0 and self._missed % self._patience == 0)

    def _next(self, faces: list[Face]) -> Face | None:
        hint = self.hint
        if hint is None:
            return self._choice.pick(faces)
        nearest = max(faces, key=lambda face: overlap(face.box, hint), default=None)
        if nearest is not None and overlap(nearest.box, hint) > 0.2:
            return nearest
        # Fast motion leaves no overlap; a lone face of the same size is still the same one.
        last_size = float(max(hint[2:] - hint[:2]))
        if len(faces) == 1 and 0.7 < faces[0].size / last_size < 1.4:
            return faces[0]
        return self._choice.pick(faces) if self._missed >= self._patience else None


@dataclass(frozen=True)
class Gap:
    """Frames start ≤ i < stop in which the face was not found, and how they were filled."""

    start: int
    stop: int
    filled: State


def fill_gaps(track: MotionTrack) -> list[Gap]:
    """Gives every frame landmarks, shot by shot, and returns what had to be filled.

    Short gaps are interpolated, long ones hold the last found frame and ease into the next, the
    ends of a shot hold the nearest found frame. A shot without any face stays `ABSENT`.
    """
    light = track.light()
    found = light["state"] == State.FOUND
    gaps = []
    for shot_start, shot_stop in shot_ranges(light["shot"]):
        for start, stop in _runs(~found[shot_start:shot_stop], offset=shot_start):
            before = start - 1 if start > shot_start else None
            after = stop if stop < shot_stop else None
            gaps.append(Gap(start, stop, _fill(track, start, stop, before, after)))
    return gaps


def shot_ranges(shots: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Runs of equal shot number: [(start, stop), …]."""
    edges = np.flatnonzero(np.diff(shots)) + 1
    bounds = [0, *edges.tolist(), len(shots)]
    return [(a, b) for a, b in itertools.pairwise(bounds) if b > a]


def _runs(mask: NDArray[np.bool_], *, offset: int) -> list[tuple[int, int]]:
    steps = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return [(int(a) + offset, int(b) + offset) for a, b in zip(starts, stops, strict=True)]


def _fill(
    track: MotionTrack, start: int, stop: int, before: int | None, after: int | None
) -> State:
    left, right = before if before is not None else after, after if after is not None else before
    if left is None or right is None:
        return State.ABSENT
    first, last = track.read(left, left + 1)[0], track.read(right, right + 1)[0]
    length = stop - start
    short = length <= INTERPOLATED_SECONDS * track.rate
    state = State.INTERPOLATED if short and left != right else State.HELD
    ease = max(1, round(EASE_SECONDS * float(track.rate)))
    for chunk_start in range(start, stop, CHUNK):
        chunk = track.read(chunk_start, min(chunk_start + CHUNK, stop))
        step = np.arange(chunk_start, chunk_start + len(chunk)) - start + 1
        if state is State.INTERPOLATED:
            weight = step / (length + 1)
        else:
            ramp = np.clip((step - (length + 1 - ease)) / ease, 0, 1)
            weight = ramp * ramp * (3 - 2 * ramp)
        for field in ("points", "blendshapes"):
            # (n,) → (n, 1, 1) or (n, 1)
            shaped = weight.reshape(-1, *(1,) * (chunk[field].ndim - 1))
            chunk[field] = (1 - shaped) * first[field] + shaped * last[field]
        chunk["state"] = state
        track.write(chunk_start, chunk)
    return state


def even_count(seconds: float, rate: Fraction) -> int:
    """How many frames of a constant rate stand for those of which the last begins `seconds` after
    the first."""
    return round(seconds * float(rate)) + 1


def resampled(track: MotionTrack) -> MotionTrack:
    """The same motion at exactly k / rate seconds, to the last frame's time: what constant-rate
    output needs.

    Landmarks are interpolated in time within a shot, so a clip of variable frame rate keeps its
    sync. A track that is already even within a quarter of a frame is returned as it is.
    """
    light = track.light()
    times = light["time"]
    count = even_count(float(times[-1] - times[0]), track.rate)
    wanted = np.arange(count) / float(track.rate)
    if len(times) == count and np.abs(times - wanted).max() < 0.25 / float(track.rate):
        return track
    right = np.clip(np.searchsorted(times, wanted, side="right"), 1, len(times) - 1)
    left = right - 1
    weight = np.clip((wanted - times[left]) / np.maximum(times[right] - times[left], 1e-9), 0, 1)
    weight[light["shot"][left] != light["shot"][right]] = 0.0
    even = MotionTrack(width=track.width, height=track.height, rate=track.rate)
    for k in range(count):
        a, b = track.read(int(left[k]), int(right[k]) + 1)
        record = (a if weight[k] < 0.5 else b).copy()
        record["time"] = wanted[k]
        for field in ("points", "blendshapes"):
            record[field] = (1 - weight[k]) * a[field] + weight[k] * b[field]
        even.append(record[None])
    track.close()
    return even
