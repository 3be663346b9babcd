"""First pass over the driver: landmarks of one face in every frame."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.head_sheet import skull_points, turned_away
from metaportrait_cli.face.orientation import describe_turns, turned, turned_face
from metaportrait_cli.face.track import (
    CHUNK,
    RECORD,
    FaceChoice,
    FaceFollower,
    Gap,
    MotionTrack,
    State,
    even_count,
    fill_gaps,
    resampled,
)
from metaportrait_cli.media.frames import FrameSource
from metaportrait_cli.media.given import Clip
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.span import WHOLE, Span, Trimmed
from metaportrait_cli.motion.motion_file import SUFFIX, read_motion, write_motion
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.sightings import Sighting, sightings
from metaportrait_cli.pipeline.work import Work
from metaportrait_cli.progress import Progress, Stopwatch
from metaportrait_cli.render.protocol import DriverLooks
from metaportrait_cli.stages import prefetched

_TRACK = f"landmarks{SUFFIX}"
_NOTICED = "landmarks.json"
TURN = float(np.radians(8.0))
"""Who turns by so much mostly turns by 6 degrees from wherever turns are counted from; where not,
layers are made that nobody needs, on a core that would be idle"""
FRAMES_BETWEEN_TURNS = 5
FACES_AHEAD = 32
"""Faces that are followed before their expression is told: the next frame needs but their place"""
SEEN_SIDE = 256
"""Of the squares around the driver's face that renderers may read"""

Driver = str | os.PathLike[str] | Clip


@dataclass(frozen=True)
class DriverMotion:
    """The driver's motion, and what was noticed on the way."""

    driver: Path | Clip
    track: MotionTrack
    gaps: list[Gap]
    has_audio: bool
    order: Sequence[int] | None
    """The driver's picture on screen in each frame of the track; `None` of a motion template, which
    has none."""
    turns: list[int] = field(default_factory=list)
    """Quarter turns counter-clockwise that bring each shot upright; the track's points are so."""
    notes: list[str] = field(default_factory=list)
    span: Span = WHOLE
    """The part of the driver that this is the motion of"""
    begins: Fraction = Fraction(0)
    """Seconds of the driver before its first frame"""

    @property
    def name(self) -> str:
        """For messages."""
        return self.driver.name

    @property
    def sound(self) -> Path | None:
        """The file whose sound belongs to the motion."""
        return self.driver if self.has_audio and isinstance(self.driver, Path) else None

    def save(self, folder: Path) -> None:
        """Keeps it for a run that goes on after this one."""
        with atomic_output(folder / _TRACK) as partial:
            write_motion(self.track, partial)
        known = {
            "gaps": [[gap.start, gap.stop, int(gap.filled)] for gap in self.gaps],
            "has_audio": self.has_audio,
            "order": None if self.order is None else list(self.order),
            "turns": self.turns,
            "notes": self.notes,
            "begins": str(self.begins),
        }
        with atomic_output(folder / _NOTICED) as partial:
            partial.write_text(json.dumps(known))

    @classmethod
    def saved(cls, driver: Driver, folder: Path, *, span: Span) -> DriverMotion | None:
        """What `save` kept, if it was come to. Raises `MediaError` if it is damaged."""
        if not isinstance(driver, Path) or not (folder / _NOTICED).is_file():
            return None
        track = read_motion(folder / _TRACK)
        try:
            known = json.loads((folder / _NOTICED).read_text())
            gaps = [Gap(start, stop, State(filled)) for start, stop, filled in known.pop("gaps")]
            begins = Fraction(known.pop("begins"))
            return cls(driver, track, gaps=gaps, span=span, begins=begins, **known)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise MediaError(
                f"{folder}: what was begun is damaged; `discard` starts anew"
            ) from error

    def pictures(self) -> Generator[NDArray[np.uint8], None, None]:
        """What is on screen in each frame of the track, (H, W, 3); none of a motion template."""
        if self.order is None:
            return
        with open_frames(self.driver, span=self.span) as frames:
            shown = next(frames)
            for number in self.order:
                while shown.index < number:
                    shown = next(frames)
                yield shown.image


class DriverFaces:
    """Goes through a driver's pictures once, in order."""

    def __init__(self, motion: DriverMotion) -> None:
        """Raises `UsageError` for a motion template, which has no pictures, and for frames that can
        be read once only."""
        if motion.order is None:
            raise UsageError(
                f"{motion.name}: a motion template shows no face, and these weights read"
                " expressions from the driver's; give the clip itself"
            )
        if isinstance(motion.driver, Clip) and not motion.driver.lasts:
            raise UsageError("these weights read the driver twice: give its frames as a list")
        self._motion = motion
        self._pictures: Generator[NDArray[np.uint8], None, None] = motion.pictures()
        self._number = 0

    def next(self, count: int) -> DriverLooks | None:
        """The following frames, of one shot; `None` where it shows no face."""
        start, track = self._number, self._motion.track
        self._number += count
        shown = [next(self._pictures) for _ in range(count)]
        records = track.read(start, start + count)
        if (records["state"] == State.ABSENT).any():
            return None
        if self._motion.turns:
            turns = [self._motion.turns[shot] for shot in records["shot"]]
            shown = [turned(picture, count) for picture, count in zip(shown, turns, strict=True)]
        return looks_of_faces(shown, records["points"])

    def close(self) -> None:
        """Lets go of the driver."""
        self._pictures.close()


def looks_of_faces(
    pictures: Sequence[NDArray[np.uint8]], points: NDArray[np.float32]
) -> DriverLooks:
    """Faces with points (T, 478, 3), cut out of their pictures (H, W, 3)."""
    crops = [Crop.around(face) for face in points]
    cut = [crop.cut(each, SEEN_SIDE) for crop, each in zip(crops, pictures, strict=True)]
    inside = [crop.to_crop(face, SEEN_SIDE) for crop, face in zip(crops, points, strict=True)]
    return DriverLooks(np.stack(cut), np.stack(inside))


def as_driver(driver: Driver) -> Path | Clip:
    """A driver as a caller may give it. Raises `UsageError` for what is none."""
    if isinstance(driver, Clip):
        return driver
    if not isinstance(driver, (str, os.PathLike)):
        raise UsageError(
            f"`driver` is {type(driver).__name__}: give a path, or frames as Clip(frames, rate=25)"
        )
    return Path(driver)


def check_reference(wanted: int | None, frames: int) -> None:
    """Raises `UsageError` unless the frame that is asked for is one of so many."""
    if wanted is not None and not 0 <= wanted < frames:
        raise UsageError(f"`reference_frame` {wanted}: the driver has frames 0 to {frames - 1}")


def check_declared(driver: Path, wanted: int | None, span: Span) -> None:
    """The same, before any frame is read, of a frame that is far beyond the clip's end."""
    if wanted is None or driver.name.endswith(SUFFIX):
        return
    with open_frames(driver, span=span) as frames:
        declared = frames.info.frames
    # What a clip says of itself is not exact, but not off by as much as this.
    if declared and wanted >= 2 * declared:
        check_reference(wanted, declared)


@contextmanager
def decoding(driver: Path | Clip, span: Span) -> Iterator[FrameSource | None]:
    """A video's frames for `load_motion`, which are decoded while something else is done; `None`
    for other drivers."""
    if isinstance(driver, Clip) or driver.name.endswith(SUFFIX):
        yield None
        return
    with open_frames(driver, span=span, rough=True) as frames:
        frames.begin()
        yield frames


def load_motion(
    driver: Driver,
    decoded: FrameSource | None = None,
    *,
    choice: FaceChoice,
    engine: Engine,
    stopwatch: Stopwatch,
    on_progress: Progress,
    work: Work | None = None,
    span: Span = WHOLE,
    on_rate: Callable[[Fraction], None] = lambda _rate: None,
    on_turn: Callable[[], object] = lambda: None,
) -> DriverMotion:
    """Landmarks of a clip, an image folder or a motion template; every frame has some. The clip may
    be `decoded` already, by `decoding`.

    Unless it is a template, `on_rate` is told the rate before the first frame is looked at, and
    `on_turn` once that the head turns. What was seen is kept in the `work`, and what lies there
    isn't looked for again.
    Raises `MediaError` for what can't be read, `NoFaceError` where no frame shows the face.
    """
    driver = as_driver(driver)
    if isinstance(driver, Path) and driver.name.endswith(SUFFIX):
        track = _part(read_motion(driver), span, name=driver.name)
        return DriverMotion(driver, track, gaps=[], has_audio=False, order=None, span=span)

    with decoded or open_frames(driver, span=span, rough=True) as frames:
        info = frames.info
        on_rate(info.rate)
        track = MotionTrack(width=info.width, height=info.height, rate=info.rate)
        turns: list[int] = []  # of each shot
        most_faces = 0
        follower = FaceFollower(choice, rate=info.rate)
        turning = _Turning(on_turn)
        looking = sightings(
            frames,
            watch=follower,
            detector=engine.detector,
            stopwatch=stopwatch,
            diary=work.diary(info.rate) if work is not None else None,
        )
        with closing(prefetched(_followed(looking, follower), depth=FACES_AHEAD)) as seen:
            for sight, found in seen:
                glance, face = sight.glance, found
                most_faces = max(most_faces, len(glance.faces))
                turns[sight.shot :] = [glance.turns]
                if face is not None:
                    face = turned_face(face, glance.turns, width=info.width, height=info.height)
                    turning.look(face.points, len(track))
                track.append(_record(sight.time, sight.shot, face))
                on_progress("landmarks", len(track), info.frames)
        notes = [frames.warning] if frames.warning else []
        begins = frames.begins if isinstance(frames, Trimmed) else Fraction(0)
    notes += turn_notes(driver.name, turns)
    if turns[0] % 2:
        track.width, track.height = track.height, track.width
    light = track.light()
    found = (light["state"] == State.FOUND).any()
    if not found and work is not None:
        work.discard()  # another run would find no more
    if not found and most_faces:
        raise NoFaceError(
            f"{info.path}: `face` {choice.number} is not there: at most {most_faces} seen at a"
            " time, counted from the left, from 1"
        )
    if not found:
        raise NoFaceError(
            f"{info.path}: no face found in any of {len(track)} frames"
            f" ({'{}x{}'.format(*info.in_file)}); give a clip with a face turned towards the camera"
        )
    gaps = fill_gaps(track)
    order: Sequence[int] = range(len(track))
    if info.variable_rate:
        notes.append(
            f"{driver.name}: its frame rate varies; shown at {float(info.rate):.5g} a second, in"
            " the same time"
        )
        order = shown_frames(light["time"], info.rate)
        gaps = _where_shown(gaps, order)
        track = resampled(track)
    return DriverMotion(
        driver,
        track,
        gaps=gaps,
        has_audio=bool(info.audio),
        order=order,
        turns=turns,
        notes=notes,
        span=span,
        begins=begins,
    )


def _followed(
    looking: Generator[Sighting, None, None], follower: FaceFollower
) -> Iterator[tuple[Sighting, Face | None]]:
    """Sightings with the followed face in each."""
    with closing(looking):
        for sight in looking:
            yield sight, follower.follow(sight.glance.faces, cut=sight.cut)


class _Turning:
    """Tells once that a head turns away from where it looked at first."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        self._first: NDArray[np.float32] | None = None
        self._told = False

    def look(self, points: NDArray[np.float32], number: int) -> None:
        """At the face (478, 3) in a frame of this number."""
        if self._told or number % FRAMES_BETWEEN_TURNS:
            return
        if self._first is None:
            self._first, self._skull = points, skull_points(points)
        elif turned_away(self._first[self._skull], points[self._skull]) > TURN:
            self._told = True
            self._tell()


def _part(track: MotionTrack, span: Span, *, name: str) -> MotionTrack:
    """A template's frames within a span."""
    if span.whole:
        return track
    first, stop = span.frames(track.rate)
    if first >= len(track):
        raise UsageError(f"{name}: `start` {float(span.start):g} is beyond its end")
    stop = len(track) if stop is None else min(stop, len(track))
    origin = track.read(first, first + 1)
    part = MotionTrack(width=track.width, height=track.height, rate=track.rate)
    for start in range(first, stop, CHUNK):
        records = track.read(start, min(start + CHUNK, stop))
        records["time"] -= origin["time"]
        records["shot"] -= origin["shot"]
        part.append(records)
    track.close()
    return part


def turn_notes(name: str, turns: list[int]) -> list[str]:
    """One line for the user if shots were not upright."""
    if not any(turns):
        return []
    told = [
        f"shot {shot + 1} {describe_turns(count)}" if len(turns) > 1 else describe_turns(count)
        for shot, count in enumerate(turns)
        if count
    ]
    more = ", …" if len(told) > 3 else ""
    return [f"{name}: {', '.join(told[:3])}{more}; looked at upright"]


def shown_frames(times: NDArray[np.float64], rate: Fraction) -> list[int]:
    """Which of the frames at `times` (T,) is on screen in the middle of each frame of a constant
    rate."""
    count = even_count(float(times[-1] - times[0]), rate)
    middles = times[0] + (np.arange(count) + 0.5) / float(rate)
    return (np.searchsorted(times, middles, side="right") - 1).tolist()


def _where_shown(gaps: list[Gap], order: Sequence[int]) -> list[Gap]:
    """Gaps of a clip in the frames that show `order`'s."""
    shown = []
    for gap in gaps:
        start, stop = np.searchsorted(order, [gap.start, gap.stop]).tolist()
        if start < stop:
            shown.append(Gap(start, stop, gap.filled))
    return shown


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
