"""First pass over the driver: landmarks of one face in every frame."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import NoFaceError
from metaportrait_cli.face.detector import Face, MediaPipeDetector
from metaportrait_cli.face.motion_file import SUFFIX, read_motion
from metaportrait_cli.face.track import (
    RECORD,
    CutDetector,
    FaceChoice,
    FaceFollower,
    Gap,
    MotionTrack,
    State,
    fill_gaps,
    resampled,
)
from metaportrait_cli.media.reader import Frame, open_frames
from metaportrait_cli.pipeline.stages import Progress, Stopwatch, prefetched

MAX_WORKERS = 8
FRAMES_AHEAD = 8  # decoded frames that wait; bounds memory


@dataclass(frozen=True)
class DriverMotion:
    """The driver's motion, and what was noticed on the way."""

    path: Path
    track: MotionTrack
    gaps: list[Gap]
    has_audio: bool
    is_clip: bool
    """Whether `path` has pictures, or is a motion template."""
    notes: list[str] = field(default_factory=list)


def load_motion(
    path: Path,
    *,
    choice: FaceChoice,
    model: Path,
    workers: int,
    stopwatch: Stopwatch,
    on_progress: Progress,
) -> DriverMotion:
    """Landmarks of a clip, an image folder or a motion template; every frame has some.

    Raises `MediaError` for what can't be read, `NoFaceError` where no frame shows the face.
    """
    if path.name.endswith(SUFFIX):
        track = read_motion(path)
        return DriverMotion(path, track, gaps=[], has_audio=False, is_clip=False)

    with open_frames(path) as frames:
        info = frames.info
        track = MotionTrack(width=info.width, height=info.height, rate=info.rate)
        follower = FaceFollower(choice, rate=info.rate)
        ahead = prefetched(stopwatch.timed("decode", frames), depth=FRAMES_AHEAD)
        for found in _detected(
            ahead, follower=follower, model=model, workers=workers, stopwatch=stopwatch
        ):
            track.append(found)
            on_progress("landmarks", len(track), info.frames)
        notes = [frames.warning] if frames.warning else []
    light = track.light()
    if not (light["state"] == State.FOUND).any():
        raise NoFaceError(
            f"{path}: no face found in any of {len(track)} frames ({info.width}x{info.height});"
            " give a clip with a face turned towards the camera"
        )
    gaps = fill_gaps(track)
    if info.variable_rate:
        track.rate = _even_rate(light["time"], info.rate)
        track = resampled(track)
    return DriverMotion(
        path, track, gaps=gaps, has_audio=bool(info.audio), is_clip=True, notes=notes
    )


def _even_rate(times: NDArray[np.float64], declared: Fraction) -> Fraction:
    """The constant rate at which as many frames last as long as they do now."""
    if len(times) < 2:
        return declared
    spacing = (float(times[-1]) - float(times[0])) / (len(times) - 1)
    return Fraction(1 / spacing).limit_denominator(1001)


@dataclass(frozen=True)
class _Look:
    """One frame on its way through a worker."""

    time: float
    cut: bool
    faces: Future[list[Face]]


def _detected(
    frames: Iterator[Frame],
    *,
    follower: FaceFollower,
    model: Path,
    workers: int,
    stopwatch: Stopwatch,
) -> Iterator[NDArray[np.void]]:
    """Detects in parallel, follows in order; yields one record (1,) a frame."""
    own = threading.local()
    detectors: list[MediaPipeDetector] = []

    def look(
        image: NDArray[np.uint8], hint: NDArray[np.float32] | None, everywhere: bool
    ) -> list[Face]:
        if not hasattr(own, "detector"):
            own.detector = MediaPipeDetector(model)
            detectors.append(own.detector)
        with stopwatch("landmarks"):
            if everywhere:
                return own.detector.search(image)
            return own.detector.detect(image, hint=hint)

    cuts = CutDetector()
    pending: deque[_Look] = deque()
    shot = 0
    first = True
    pool = ThreadPoolExecutor(workers, thread_name_prefix="landmarks")
    try:
        for frame in frames:
            cut = cuts.is_cut(frame.image)
            everywhere = first or cut or follower.lost
            if everywhere:
                # What is under way still tells where the face is.
                while pending:
                    shot += pending[0].cut
                    yield _record(pending.popleft(), follower, shot)
                everywhere = first or cut or follower.lost
            first = False
            faces = pool.submit(look, frame.image, None if cut else follower.hint, everywhere)
            pending.append(_Look(float(frame.time), cut, faces))
            if everywhere or len(pending) > workers:
                shot += pending[0].cut
                yield _record(pending.popleft(), follower, shot)
        while pending:
            shot += pending[0].cut
            yield _record(pending.popleft(), follower, shot)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for detector in detectors:
            detector.close()


def _record(look: _Look, follower: FaceFollower, shot: int) -> NDArray[np.void]:
    face = follower.follow(look.faces.result(), cut=look.cut)
    record = np.zeros(1, RECORD)
    record["time"], record["shot"] = look.time, shot
    if face is None:
        record["state"] = State.ABSENT
    else:
        record["state"] = State.FOUND
        record["confidence"] = face.confidence
        record["points"] = face.points
        record["blendshapes"] = face.blendshapes
    return record
