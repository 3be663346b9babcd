"""`landmarks`: a clip's dense landmarks as a motion template, and drawn over the clip if wanted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import UsageError, check_given
from metaportrait_cli.face import topology
from metaportrait_cli.face.orientation import turned_points
from metaportrait_cli.face.track import LARGEST_FACE, FaceChoice, State
from metaportrait_cli.media.outputs import atomic_output, claimed
from metaportrait_cli.media.span import Span
from metaportrait_cli.media.writer import check_video_name
from metaportrait_cli.motion.motion_file import SUFFIX, write_motion
from metaportrait_cli.pipeline.driver import DriverMotion, load_motion
from metaportrait_cli.pipeline.encode import encode
from metaportrait_cli.pipeline.engine import Engine, lasting
from metaportrait_cli.pipeline.report import RunReport, describe_motion
from metaportrait_cli.progress import Progress, Stopwatch, silent

STATE_COLOURS = {
    State.FOUND: (90, 230, 120),
    State.INTERPOLATED: (240, 200, 60),
    State.HELD: (240, 90, 60),
}
CONTOURS = ("face_oval", "left_eye", "right_eye", "left_iris", "right_iris", "lips_outer")


def default_template(clip: Path) -> Path:
    """`{clip}.motion.npz` in the working directory."""
    return Path(f"{clip.stem}{SUFFIX}")


def extract_landmarks(
    clip: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    face: FaceChoice = LARGEST_FACE,
    overlay: str | os.PathLike[str] | None = None,
    start: float = 0.0,
    end: float | None = None,
    overwrite: bool = False,
    engine: Engine | None = None,
    on_progress: Progress = silent,
) -> RunReport:
    """Writes the motion template of one face of a clip, and an overlay clip if a path is given.

    `start` and `end` are seconds of the clip; what lies outside is left out.
    """
    check_given(extract_landmarks, clip=clip, output=output, overlay=overlay, engine=engine)
    check_given(extract_landmarks, face=face, start=start, end=end)
    started = time.perf_counter()
    stopwatch = Stopwatch()
    clip, output = Path(clip), Path(output)
    overlay = None if overlay is None else Path(overlay)
    if not output.name.endswith(SUFFIX):
        raise UsageError(f"{output}: a motion template's name ends in {SUFFIX}")
    if clip.name.endswith(SUFFIX):
        raise UsageError(f"{clip} is a motion template already; give a clip")
    if overlay is not None:
        check_video_name(overlay, or_folder=False)
    report = RunReport(
        command="landmarks",
        inputs={"clip": str(clip)},
        output=str(output),
        settings={"face": face.number or "largest", "start": start, "end": end},
    )
    with (
        claimed(output, overlay, overwrite=overwrite, is_input=[clip]),
        lasting(engine) as loaded,
    ):
        motion = load_motion(
            clip,
            choice=face,
            engine=loaded,
            stopwatch=stopwatch,
            on_progress=on_progress,
            span=Span.of(start, end),
        )
        describe_motion(report, motion)
        with atomic_output(output) as partial:
            write_motion(motion.track, partial)
        if overlay is not None:
            encode(
                stopwatch.timed("overlay", _overlaid(motion)),
                overlay,
                rate=motion.track.rate,
                total=len(motion.track),
                stage="overlay",
                stopwatch=stopwatch,
                on_progress=on_progress,
                audio_from=motion.sound,
                audio_offset=-motion.begins,
            )
    report.frames = len(motion.track)
    report.measure(stopwatch, time.perf_counter() - started)
    return report


def _overlaid(motion: DriverMotion) -> Iterator[NDArray[np.uint8]]:
    """The clip's frames (H, W, 3) with the landmarks drawn over them."""
    track = motion.track
    for index, image in enumerate(motion.pictures()):
        record = track.read(index, index + 1)
        picture = image.copy()
        turns = motion.turns[int(record["shot"][0])]
        height, width = picture.shape[:2]
        if turns % 2:
            width, height = height, width
        points = turned_points(record["points"][0], -turns, width=width, height=height)
        draw_landmarks(picture, points, State(int(record["state"][0])))
        yield picture


def draw_landmarks(
    picture: NDArray[np.uint8], points: NDArray[np.float32], state: State = State.FOUND
) -> None:
    """Draws the points (478, 3) and the contours of the parts, in place; colour tells the state."""
    if state is State.ABSENT:
        return
    colour = STATE_COLOURS[state]
    # Four fractional bits; cv2 counts from a pixel's centre.
    places = np.rint((points[:, :2] - 0.5) * 16).astype(np.int32)
    for x, y in places:
        cv2.circle(picture, (int(x), int(y)), 12, colour, -1, cv2.LINE_AA, 4)
    for name in CONTOURS:
        cv2.polylines(picture, [places[topology.ring(name)]], True, colour, 1, cv2.LINE_AA, 4)
