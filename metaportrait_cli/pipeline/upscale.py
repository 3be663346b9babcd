"""`upscale`: a clip at twice its size, with the faces in it enhanced.

Two passes over the clip, the files of `doubling/`: the first finds and follows the faces, the
second enhances each in its steady crop and puts it back. Of the clip, a window of frames is held
at a time.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from metaportrait_cli.devices import keep_freed_memory
from metaportrait_cli.errors import MediaError, NoFaceError, UsageError, check_given, check_kinds
from metaportrait_cli.media.encoding import USUAL, Encoding
from metaportrait_cli.media.info import LARGEST_SIDE, VideoInfo
from metaportrait_cli.media.outputs import claimed
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.writer import check_rate, check_video_name
from metaportrait_cli.pipeline.doubling.faces_in_clip import FacesInClip, find_faces
from metaportrait_cli.pipeline.doubling.pictures import (
    KEPT_PIXELS,
    FaceAlone,
    WholePicture,
    pictures,
)
from metaportrait_cli.pipeline.encode import write_clip
from metaportrait_cli.pipeline.engine import Engine, lasting
from metaportrait_cli.pipeline.report import RunReport
from metaportrait_cli.pipeline.work import Begun, Work
from metaportrait_cli.progress import Progress, Stopwatch, silent
from metaportrait_cli.render.face_stream import SCALE
from metaportrait_cli.weights.architectures import COMPACT_SR

H264_MACROBLOCKS = 139264  # of 16² pixels in a picture, at the highest level of H.264 (6.2)
MARK = "AI-enhanced: faces upscaled with metaportrait"


@dataclass(frozen=True)
class UpscaleOptions:
    """Settings of one run; see the command's help for what users are told."""

    weights: str = COMPACT_SR
    """A name, path or `hf://` spec of super-resolution weights"""
    strength: float = 1.0
    """How much of the enhanced face shows over the plain one, 0 to 1."""
    face_only: bool = False
    audio: bool = True
    window: int = 16
    """Frames that go through the network at a time, at most."""
    encoding: Encoding = USUAL

    def __post_init__(self) -> None:
        check_kinds(self)
        if not 0 <= self.strength <= 1:
            raise UsageError(f"`strength` {self.strength} is not between 0 and 1")
        if self.window < 1:
            raise UsageError(f"`window` {self.window} is not a positive number")


def default_output(clip: Path, *, face_only: bool) -> Path:
    """`{clip}--2x.mp4`, or `{clip}--face.mp4`, in the working directory."""
    return Path(f"{clip.stem}--{'face' if face_only else '2x'}.mp4")


def upscale(
    clip: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: UpscaleOptions | None = None,
    *,
    engine: Engine | None = None,
    overwrite: bool = False,
    begun: Begun = "ask",
    on_progress: Progress = silent,
) -> RunReport:
    """Writes the clip at twice its size to `output`, its faces enhanced, as many frames, its sound.

    With `face_only`, the largest face's crop instead. `on_progress` is called with the stages
    `faces` and `upscale`. Raises the errors of `metaportrait_cli.errors`; the output appears under
    its name only when it is complete. Of a longer clip what is done outlives a run that is broken
    off; `begun` tells what becomes of that, see `work.Begun`.
    """
    check_given(upscale, clip=clip, output=output, options=options, engine=engine)
    options = options or UpscaleOptions()
    device, precision = (engine.device, engine.precision) if engine else ("auto", "auto")
    started = time.perf_counter()
    stopwatch = Stopwatch()
    clip, output = Path(clip), Path(output)
    report = RunReport(
        command="upscale",
        inputs={"clip": str(clip)},
        output=str(output),
        settings={**asdict(options), "device": device, "precision": precision},
    )
    in_folder = options.encoding.in_folder
    with claimed(output, overwrite=overwrite, is_input=[clip], pictures=in_folder):
        check_video_name(output, options.encoding)
        work = Work.of(
            output, command="upscale", settings=report.settings, inputs=[clip], begun=begun
        )
        _write(
            clip,
            output,
            options,
            engine=engine,
            work=work,
            report=report,
            stopwatch=stopwatch,
            on_progress=on_progress,
        )
    report.measure(stopwatch, time.perf_counter() - started)
    return report


def _write(
    clip: Path,
    output: Path,
    options: UpscaleOptions,
    *,
    engine: Engine | None,
    work: Work,
    report: RunReport,
    stopwatch: Stopwatch,
    on_progress: Progress,
) -> None:
    with open_frames(clip) as frames:
        info = frames.info
    check_rate(output, info.rate)
    if not options.face_only:
        _check_size(info)
    network = None
    if options.strength > 0:
        if info.width * info.height <= KEPT_PIXELS:
            keep_freed_memory()
        with stopwatch("load"):
            # torch takes seconds to import; a plain enlargement doesn't need it.
            from metaportrait_cli.render.super_resolution import super_resolution_named  # noqa: PLC0415

            network, report.weights = super_resolution_named(
                options.weights,
                device=report.settings["device"],
                precision=report.settings["precision"],
            )
    known = FacesInClip.saved(work.folder)
    with lasting(engine) as loaded:
        faces = known or find_faces(clip, loaded, stopwatch, on_progress, work)
    if options.face_only and not faces.paths:
        raise NoFaceError(
            f"{clip}: no face found in any of {faces.frames} frames"
            f" ({'{}x{}'.format(*info.in_file)}); without `face_only` the clip is enlarged as it is"
        )
    _describe(report, clip, faces)
    enhanced = network is not None and bool(faces.paths)
    report.frames = len(faces.order)
    with work.kept(report.frames, faces.rate, save=None if known else faces.save) as segments:
        report.resumed_at = write_clip(
            lambda start: pictures(
                clip,
                FaceAlone(faces) if options.face_only else WholePicture(faces),
                network,
                stopwatch,
                strength=options.strength,
                window=options.window,
                start=start,
            ),
            output,
            segments,
            rate=faces.rate,
            total=report.frames,
            stage="upscale",
            stopwatch=stopwatch,
            on_progress=on_progress,
            audio_from=clip if options.audio and info.audio else None,
            encoding=options.encoding,
            comment="; ".join(filter(None, (info.mark, MARK if enhanced else ""))),
        )


def _check_size(info: VideoInfo) -> None:
    """Raises `MediaError` where the doubled picture is more than H.264 takes."""
    own = max((info.width, info.height), info.in_file)  # the largest come shrunk
    width, height = SCALE * own[0], SCALE * own[1]
    blocks = -(-width // 16) * -(-height // 16)
    if blocks > H264_MACROBLOCKS or max(own) > LARGEST_SIDE:
        raise MediaError(
            f"{info.path}: twice {own[0]}x{own[1]} is {width}x{height}, more than H.264"
            " takes (8192x4320); shrink the clip first, or take `face_only`"
        )


def _describe(report: RunReport, clip: Path, faces: FacesInClip) -> None:
    report.rate = str(faces.rate)
    report.duration_seconds = round(len(faces.order) / float(faces.rate), 3)
    report.shots = faces.shots
    report.faces["clip"] = {
        "followed": len(faces.paths),
        "frames_with_face": int(np.count_nonzero(faces.in_frames())),
        "crops": [{"frames": [path.start, path.stop], "side": path.side} for path in faces.paths],
    }
    if faces.warning:
        report.notes.append(faces.warning)
    if not faces.paths:
        report.notes.append(
            f"{clip.name}: no face found in any of {faces.frames} frames; enlarged as it is"
        )
