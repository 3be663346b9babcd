"""First pass over the driver: landmarks of one face in every frame."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import NoFaceError
from metaportrait_cli.face.detector import Face
from metaportrait_cli.face.track import (
    RECORD,
    FaceChoice,
    FaceFollower,
    Gap,
    MotionTrack,
    State,
    fill_gaps,
    resampled,
)
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.motion.motion_file import SUFFIX, read_motion
from metaportrait_cli.pipeline.sightings import sightings
from metaportrait_cli.progress import Progress, Stopwatch

MAX_WORKERS = 8


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
        with closing(
            sightings(frames, watch=follower, model=model, workers=workers, stopwatch=stopwatch)
        ) as seen:
            for sight in seen:
                face = follower.follow(sight.faces, cut=sight.cut)
                track.append(_record(sight.time, sight.shot, face))
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
        track.rate = even_rate(light["time"], info.rate)
        track = resampled(track)
    return DriverMotion(
        path, track, gaps=gaps, has_audio=bool(info.audio), is_clip=True, notes=notes
    )


def even_rate(times: NDArray[np.float64], declared: Fraction) -> Fraction:
    """The constant rate at which as many frames last as long as they do now."""
    if len(times) < 2:
        return declared
    spacing = (float(times[-1]) - float(times[0])) / (len(times) - 1)
    return Fraction(1 / spacing).limit_denominator(1001)


def _record(time: Fraction, shot: int, face: Face | None) -> NDArray[np.void]:
    """One record (1,) of a track."""
    record = np.zeros(1, RECORD)
    record["time"], record["shot"] = time, shot
    if face is None:
        record["state"] = State.ABSENT
    else:
        record["state"] = State.FOUND
        record["confidence"] = face.confidence
        record["points"] = face.points
        record["blendshapes"] = face.blendshapes
    return record
