"""`animate`: one portrait, one driver, one clip. The way of a frame, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.detector import CONFIDENCE_STEPS, MediaPipeDetector
from metaportrait_cli.face.orientation import describe_turns
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import LARGEST_FACE, FaceChoice, State, shot_ranges
from metaportrait_cli.media.outputs import check_output
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.writer import check_video_name
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.motion_file import SUFFIX
from metaportrait_cli.pipeline.compose import PasteBack, SideBySide, resized
from metaportrait_cli.pipeline.driver import DriverMotion, load_motion
from metaportrait_cli.pipeline.encode import encode
from metaportrait_cli.pipeline.performance import DriveOptions, Performance
from metaportrait_cli.pipeline.person.portrait_file import Portrait, load_portrait
from metaportrait_cli.pipeline.report import MARK, RunReport, describe_gaps, gap_note
from metaportrait_cli.pipeline.source import load_sources
from metaportrait_cli.progress import Progress, Stopwatch, silent
from metaportrait_cli.render.named import DEFAULT, Rendering, rendering_named
from metaportrait_cli.render.protocol import Frames
from metaportrait_cli.render.views import open_views
from metaportrait_cli.weights import bundled_path

LANDMARK_MODEL = "face_landmarker.task"
MORPHABLE_MODEL = "morphable.safetensors"
DEFAULT_DRIVE = DriveOptions()
CROP_SIZE = 512
"""Side of the result in pixels that shows the crop alone, unless another is asked for."""
ENOUGH = 1.25
"""A result that is at most so many times larger than what was rendered is enlarged plainly."""
MOST_DOUBLINGS = 2


@dataclass(frozen=True)
class AnimateOptions:
    """Settings of one run; see the command's help for what users are told."""

    weights: str | None = None
    """`none`, or a name, path or `hf://` spec of weights; see `renderers.rendering_named`. `None`
    takes those that the portrait was made for, or the bundled ones."""
    device: str = "auto"
    precision: str = "auto"
    face: FaceChoice = LARGEST_FACE
    source_face: FaceChoice = LARGEST_FACE
    drive: DriveOptions = DEFAULT_DRIVE
    full: bool = True
    """Paste back into the whole picture, or give the crop alone."""
    size: int | None = None
    """Side of the face's crop in pixels; by default the source's own, and 512 where `full` is off.
    One that is asked for gets super-resolution where the renderer can't fill it."""
    compare: bool = False
    audio: bool = True
    window: int = 16
    """Frames a renderer gets at a time."""

    def __post_init__(self) -> None:
        if not 0 <= self.drive.strength <= 3:
            raise UsageError(f"--strength {self.drive.strength} is not between 0 and 3")
        if self.size is not None and (self.size % 2 or not 64 <= self.size <= 2048):
            raise UsageError(f"--size {self.size} is not an even number between 64 and 2048")
        if self.window < 1:
            raise UsageError(f"--window {self.window} is not a positive number")


def default_output(source: Path, driver: Path) -> Path:
    """`{source}--{driver}.mp4` in the working directory."""
    stem = driver.name.removesuffix(SUFFIX) if driver.name.endswith(SUFFIX) else driver.stem
    return Path(f"{source.stem}--{stem}.mp4")


def animate(
    source_paths: Sequence[Path],
    driver_path: Path,
    output: Path,
    options: AnimateOptions | None = None,
    *,
    overwrite: bool = False,
    portrait: Path | None = None,
    on_progress: Progress = silent,
) -> RunReport:
    """Re-enacts the portrait with the driver's motion and writes the clip to `output`.

    The first source gives the picture; further ones of the same person help in other poses. A
    `portrait` file, made by `personalize`, stands in place of sources.
    As many frames as the driver, at its rate, with its audio. `on_progress` is called with the
    stages `landmarks` and `render`. Raises the errors of `metaportrait_cli.errors`; the output
    appears under its name only when it is complete.
    """
    options = options or AnimateOptions()
    started = time.perf_counter()
    stopwatch = Stopwatch()
    if bool(source_paths) == (portrait is not None):
        raise UsageError("give either --source or --portrait")
    shown = [portrait] if portrait is not None else source_paths
    check_output(output, overwrite=overwrite, is_input=[*shown, driver_path])
    check_video_name(output)
    report = RunReport(
        command="animate",
        inputs={"source": [str(path) for path in shown], "driver": str(driver_path)},
        output=str(output),
        settings=asdict(options),
    )
    model = bundled_path(LANDMARK_MODEL)

    person: Portrait | None = None
    with stopwatch("source"):
        if portrait is not None:
            person = load_portrait(portrait)
            source = person.source
        else:
            with MediaPipeDetector(model) as detector:
                source = load_sources(source_paths, choice=options.source_face, detector=detector)
    motion = load_motion(
        driver_path,
        choice=options.face,
        model=model,
        stopwatch=stopwatch,
        on_progress=on_progress,
    )
    _describe_source(report, source)
    describe_motion(report, motion)
    wanted = options.drive.reference_frame
    if wanted is not None and not 0 <= wanted < len(motion.track):
        raise UsageError(
            f"--reference-frame {wanted}: the driver has frames 0 to {len(motion.track) - 1}"
        )

    with stopwatch("source"):
        rendering = rendering_named(
            options.weights or (person.base.name if person else DEFAULT),
            person=person,
            device=options.device,
            precision=options.precision,
            on_notice=report.notes.append,
            on_progress=on_progress,
        )
        rendering, size = _sized(rendering, source, options, on_notice=report.notes.append)
        session = open_views(rendering.renderer, source, size=size, rate=motion.track.rate)
    report.weights = rendering.weights
    performance = Performance(
        track=motion.track,
        source=source,
        model=MorphableModel.load(bundled_path(MORPHABLE_MODEL)),
        options=options.drive,
    )
    driven = stopwatch.timed("retarget", performance.windows(options.window))
    in_crop = (source.crop.to_crop(points, size) for points in driven)
    enhancer = rendering.enhancer
    rendered: Iterable[Frames]
    if enhancer is None:
        rendered = stopwatch.timed("render", (session.render(points) for points in in_crop))
    else:
        windows = stopwatch.timed("render", (enhancer.window(session, p) for p in in_crop))
        rendered = stopwatch.timed("enhance", enhancer.enhance(windows, source))
    composed = _composed(rendered, source, motion, options=options, stopwatch=stopwatch)
    report.frames = encode(
        composed,
        output,
        rate=motion.track.rate,
        total=len(motion.track),
        stage="render",
        stopwatch=stopwatch,
        on_progress=on_progress,
        audio_from=driver_path if options.audio and motion.has_audio else None,
        comment=MARK,
    )
    _describe_performance(report, performance)
    report.measure(stopwatch, time.perf_counter() - started)
    return report


def _sized(
    rendering: Rendering,
    source: Source,
    options: AnimateOptions,
    *,
    on_notice: Callable[[str], None],
) -> tuple[Rendering, int]:
    """With super-resolution where the wanted size needs it, and the size to open the renderer at.

    Where the renderer takes detail from the source, that was nearer to the truth than what
    super-resolution makes of a smaller picture: it must be asked for. After mere paint it is the
    rule.
    """
    renderer = rendering.renderer
    side = source.crop.side + source.crop.side % 2
    size = options.size or (side if options.full else CROP_SIZE)
    asked = options.size is not None
    own = renderer.fixed_size or side
    doublings = doublings_for(size, own=own)
    if doublings == 0 or rendering.enhancer is not None or not (asked or not renderer.keeps_detail):
        return rendering, size
    from metaportrait_cli.render.enhanced import super_resolved  # noqa: PLC0415  needs torch

    enhanced = super_resolved(
        rendering,
        own=own,
        doublings=doublings,
        asked=asked,
        device=options.device,
        precision=options.precision,
        on_notice=on_notice,
    )
    return (rendering, size) if enhanced is None else (enhanced, own)


def doublings_for(size: int, *, own: int) -> int:
    """How often a picture of side `own` is doubled for a result of side `size`."""
    count = 0
    while count < MOST_DOUBLINGS and size > ENOUGH * (own << count):
        count += 1
    return count


def _composed(
    rendered: Iterable[Frames],
    source: Source,
    motion: DriverMotion,
    *,
    options: AnimateOptions,
    stopwatch: Stopwatch,
) -> Iterator[NDArray[np.uint8]]:
    """Output pictures (H, W, 3), one a frame."""
    paste = PasteBack(source) if options.full else None
    size = options.size or CROP_SIZE
    still = source.picture if options.full else source.crop.cut(source.picture, size)
    panels = SideBySide(still, height=still.shape[0]) if options.compare else None
    with ExitStack() as stack:
        driver = iter(())
        if panels is not None and motion.is_clip:
            driver = iter(stack.enter_context(open_frames(motion.path)))
        shown: NDArray[np.uint8] | None = None
        for window in rendered:
            for crop in window:
                with stopwatch("compose"):
                    picture = paste(crop) if paste else resized(crop, size)
                    if panels is not None:
                        frame = next(driver, None)
                        shown = frame.image if frame is not None else shown
                        picture = panels(shown, picture)
                yield picture


def describe_motion(report: RunReport, motion: DriverMotion) -> None:
    """Tells the driver's part of the report."""
    track = motion.track
    rate = float(track.rate)
    light = track.light()
    found = light["state"] == State.FOUND
    report.rate = str(track.rate)
    report.duration_seconds = round(len(track) / rate, 3)
    report.shots = len(shot_ranges(light["shot"]))
    report.gaps = describe_gaps(motion.gaps, rate=rate)
    report.faces["driver"] = {
        "frames_found": int(found.sum()),
        "lowest_confidence": round(float(light["confidence"][found].min(initial=1.0)), 2),
    }
    report.notes += motion.notes
    note = gap_note(motion.path, motion.gaps, frames=len(track), rate=rate)
    if note:
        report.notes.append(note)


def _describe_source(report: RunReport, source: Source) -> None:
    report.faces["source"] = {
        "seen": source.faces_seen,
        "box": [round(float(v), 1) for v in source.face.box],
        "confidence": source.face.confidence,
        "further_views": len(source.others),
    }
    if source.faces_seen > 1:
        report.notes.append(
            f"{source.path.name}: {source.faces_seen} faces, numbered from the left;"
            " choose one with --source-face"
        )
    if source.turns:
        report.notes.append(f"{source.path.name}: {describe_turns(source.turns)}; turned upright")
    if source.face.confidence < CONFIDENCE_STEPS[0]:
        report.notes.append(f"{source.path.name}: the face was found with low confidence only")


def _describe_performance(report: RunReport, performance: Performance) -> None:
    report.reference_frames = performance.references
    report.clamped_frames = performance.clamped_frames
    if performance.clamped_frames:
        report.notes.append(
            f"{performance.clamped_frames} of {report.frames} frames turn further than the source"
            " supports; their pose was held back"
        )
