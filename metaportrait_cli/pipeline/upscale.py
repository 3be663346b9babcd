"""`upscale`: a clip at twice its size, with the faces in it enhanced.

Two passes over the clip: the first finds and follows the faces, the second enhances each in its
steady crop and puts it back. Of the clip, a window of frames is held at a time.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError
from metaportrait_cli.face.crowd import Crowd, FacePath
from metaportrait_cli.media.arguments import USUAL, Encoding
from metaportrait_cli.media.info import LARGEST_SIDE, VideoInfo
from metaportrait_cli.media.outputs import atomic_output, claimed
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.writer import check_video_name
from metaportrait_cli.pipeline.compose import resized
from metaportrait_cli.pipeline.driver import even_rate, shown_frames
from metaportrait_cli.pipeline.encode import write_clip
from metaportrait_cli.pipeline.engine import Engine, lasting
from metaportrait_cli.pipeline.report import RunReport
from metaportrait_cli.pipeline.sightings import FRAMES_AHEAD, sightings
from metaportrait_cli.pipeline.work import Begun, Work
from metaportrait_cli.progress import Progress, Stopwatch, silent
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
from metaportrait_cli.weights.architectures import COMPACT_SR

FACE_SIDE = 512
"""Least side of the result that shows the face alone."""
H264_MACROBLOCKS = 139264  # of 16² pixels in a picture, at the highest level of H.264 (6.2)
_PLACES, _NOTICED = "faces.npz", "faces.json"
MARK = "AI-enhanced: faces upscaled with metaportrait"

Image = NDArray[np.uint8]


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
        if not 0 <= self.strength <= 1:
            raise UsageError(f"`strength` {self.strength} is not between 0 and 1")
        if self.window < 1:
            raise UsageError(f"`window` {self.window} is not a positive number")


@dataclass(frozen=True)
class FacesInClip:
    """What the first pass found."""

    paths: list[FacePath]
    frames: int
    shots: int
    rate: Fraction
    order: Sequence[int]
    """The frame that is shown for each frame of the result, which has a constant rate."""
    warning: str | None

    def save(self, folder: Path) -> None:
        """Keeps it for a run that goes on after this one."""
        arrays = {
            f"{name}{number}": getattr(path, name)
            for number, path in enumerate(self.paths)
            for name in ("corners", "presence")
        }
        with atomic_output(folder / _PLACES) as partial:
            np.savez(partial, **arrays)
        known = {
            "paths": [[path.start, path.side] for path in self.paths],
            "frames": self.frames,
            "shots": self.shots,
            "rate": str(self.rate),
            "order": list(self.order),
            "warning": self.warning,
        }
        with atomic_output(folder / _NOTICED) as partial:
            partial.write_text(json.dumps(known))

    @classmethod
    def saved(cls, folder: Path) -> FacesInClip | None:
        """What `save` kept, if it was come to. Raises `MediaError` if it is damaged."""
        if not (folder / _NOTICED).is_file():
            return None
        try:
            known = json.loads((folder / _NOTICED).read_text())
            with np.load(folder / _PLACES, allow_pickle=False) as arrays:
                paths = [
                    FacePath(start, side, arrays[f"corners{number}"], arrays[f"presence{number}"])
                    for number, (start, side) in enumerate(known.pop("paths"))
                ]
            return cls(paths=paths, rate=Fraction(known.pop("rate")), **known)
        except (OSError, ValueError, TypeError, LookupError, zipfile.BadZipFile) as error:
            raise MediaError(
                f"{folder}: what was begun is damaged; `discard` starts anew"
            ) from error


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
    if not options.face_only:
        _check_size(info)
    network = None
    if options.strength > 0:
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
            f" ({info.width}x{info.height}); without `face_only` the clip is enlarged as it is"
        )
    _describe(report, clip, faces)
    enhanced = network is not None and bool(faces.paths)
    report.frames = faces.frames
    with work.kept(faces.frames, faces.rate, save=None if known else faces.save) as segments:
        report.resumed_at = write_clip(
            lambda start: pictures(clip, faces, network, options, stopwatch, start=start),
            output,
            segments,
            rate=faces.rate,
            total=faces.frames,
            stage="upscale",
            stopwatch=stopwatch,
            on_progress=on_progress,
            audio_from=clip if options.audio and info.audio else None,
            encoding=options.encoding,
            comment="; ".join(filter(None, (info.mark, MARK if enhanced else ""))),
        )


def find_faces(
    clip: Path, engine: Engine, stopwatch: Stopwatch, on_progress: Progress, work: Work | None
) -> FacesInClip:
    """The first pass: where each face is, in each shot, and when each frame is shown."""
    with open_frames(clip) as frames:
        info = frames.info
        crowd = Crowd(width=frames.width, height=frames.height, rate=info.rate)
        times = []
        shots = 0
        diary = work.diary(info.rate) if work is not None else None
        looking = sightings(
            frames, watch=crowd, detector=engine.detector, stopwatch=stopwatch, diary=diary
        )
        with closing(looking):
            for seen in looking:
                crowd.follow(seen.glance.faces, cut=seen.cut, everywhere=seen.glance.everywhere)
                times.append(float(seen.time))
                shots = seen.shot + 1
                on_progress("faces", len(times), info.frames)
        warning = frames.warning
    rate, order = info.rate, range(len(times))
    if info.variable_rate:
        rate = even_rate(np.array(times), info.rate)
        order = shown_frames(np.array(times), rate)
    return FacesInClip(
        paths=crowd.paths(),
        frames=crowd.frames,
        shots=shots,
        rate=rate,
        order=order,
        warning=warning,
    )


def pictures(
    clip: Path,
    faces: FacesInClip,
    network: FaceNetwork | None,
    options: UpscaleOptions,
    stopwatch: Stopwatch,
    *,
    start: int = 0,
) -> Iterator[Image]:
    """The second pass: the result's pictures from number `start` on, of one size; plain without a
    network."""
    view = FaceAlone(faces) if options.face_only else WholePicture(faces)
    shown = np.bincount(faces.order, minlength=faces.frames)
    until = np.cumsum(shown)
    begin = int(np.searchsorted(until, start, side="right"))  # of the clip's frames
    shown = shown[begin:]
    shown[:1] = until[begin : begin + 1] - start
    chosen = {which: faces.paths[which] for which in view.followed}
    first = begin
    if network is not None:
        first = earliest_needed(chosen, begin, network, window=options.window)
    with (
        open_frames(clip) as frames,
        closing(
            prefetched(stopwatch.timed("decode", islice(frames, first, None)), depth=FRAMES_AHEAD)
        ) as ahead,
    ):
        tape = Tape(ahead, first=first)
        feed = None
        if network is not None:
            feed = PatchFeed(chosen, tape, network, window=options.window, start=begin)
        for number, times in enumerate(shown.tolist(), begin):
            with stopwatch("enhance"):
                patches = feed.at(number) if feed else {}
            if times:
                with stopwatch("compose"):
                    picture = view.draw(tape[number], number, patches, strength=options.strength)
                yield from repeat(picture, times)
            tape.release(number + 1)


class WholePicture:
    """Everything, doubled, with all faces put back."""

    def __init__(self, faces: FacesInClip) -> None:
        self._paths = faces.paths
        self.followed: Sequence[int] = range(len(faces.paths))

    def draw(
        self, image: Image, number: int, patches: dict[int, Image], *, strength: float
    ) -> Image:
        """The picture (2H, 2W, 3) for a frame (H, W, 3) and the patches of the faces in it."""
        picture = doubled(image)
        for which, patch in patches.items():
            path = self._paths[which]
            weight = strength * float(path.presence[number - path.start])
            put_back(picture, patch, path.crop(number), weight=weight)
        return picture


class FaceAlone:
    """The crop of the largest face in each frame; where there is none, of the last one's place."""

    def __init__(self, faces: FacesInClip) -> None:
        self._paths = faces.paths
        self._leads = _leads(faces)
        self.followed: Sequence[int] = np.unique(self._leads).tolist()
        largest = max(faces.paths[which].side for which in self.followed)
        self._side = max(FACE_SIDE, SCALE * largest)

    def draw(
        self, image: Image, number: int, patches: dict[int, Image], *, strength: float
    ) -> Image:
        """The picture (S, S, 3) for a frame (H, W, 3)."""
        lead = int(self._leads[number])
        path = self._paths[lead]
        frame = min(max(number, path.start), path.stop - 1)
        picture = doubled(path.crop(frame).cut(image, path.side))
        if lead in patches:
            weight = strength * float(path.presence[number - path.start])
            picture = cv2.addWeighted(patches[lead], weight, picture, 1 - weight, 0)
        return resized(picture, self._side)


def _faces_in_frames(faces: FacesInClip) -> NDArray[np.intp]:
    """How many faces each frame shows, (T,)."""
    count = np.zeros(faces.frames, int)
    for path in faces.paths:
        count[path.start : path.stop] += 1
    return count


def _leads(faces: FacesInClip) -> NDArray[np.intp]:
    """For each frame (T,) the number of the path to show."""
    leads = np.full(faces.frames, -1)
    for which in sorted(range(len(faces.paths)), key=lambda n: faces.paths[n].side):
        path = faces.paths[which]
        leads[path.start : path.stop] = which
    known = np.flatnonzero(leads >= 0)
    last = np.searchsorted(known, np.arange(faces.frames), side="right") - 1
    return leads[known[np.maximum(last, 0)]]


def _check_size(info: VideoInfo) -> None:
    """Raises `MediaError` where the doubled picture is more than H.264 takes."""
    own = max((info.width, info.height), info.coded or (0, 0))  # the largest come shrunk
    width, height = SCALE * own[0], SCALE * own[1]
    blocks = -(-width // 16) * -(-height // 16)
    if blocks > H264_MACROBLOCKS or max(own) > LARGEST_SIDE:
        raise MediaError(
            f"{info.path}: twice {own[0]}x{own[1]} is {width}x{height}, more than H.264"
            " takes (8192x4320); shrink the clip first, or take `face_only`"
        )


def _describe(report: RunReport, clip: Path, faces: FacesInClip) -> None:
    report.rate = str(faces.rate)
    report.duration_seconds = round(faces.frames / float(faces.rate), 3)
    report.shots = faces.shots
    report.faces["clip"] = {
        "followed": len(faces.paths),
        "frames_with_face": int(np.count_nonzero(_faces_in_frames(faces))),
        "crops": [{"frames": [path.start, path.stop], "side": path.side} for path in faces.paths],
    }
    if faces.warning:
        report.notes.append(faces.warning)
    if not faces.paths:
        report.notes.append(
            f"{clip.name}: no face found in any of {faces.frames} frames; enlarged as it is"
        )
