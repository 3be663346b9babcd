"""`evaluate`: several methods on the same frames of the same clips, judged in one run.

`self`: each clip's first face is driven by the landmarks of its own later frames, which are the
truth. `cross`: each clip drives the next clip's person as `animate` would; there is no truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.media.outputs import check_output
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.metrics.identity import other_person
from metaportrait_cli.metrics.motion import landmark_jitter
from metaportrait_cli.metrics.summary import Summary, bootstrap
from metaportrait_cli.pipeline.animate import LANDMARK_MODEL, worker_count
from metaportrait_cli.pipeline.contact_sheet import ContactSheet
from metaportrait_cli.pipeline.drive import DriveOptions, Performance
from metaportrait_cli.pipeline.methods import COPY, renderer_named
from metaportrait_cli.pipeline.motion import load_motion
from metaportrait_cli.pipeline.render import Frames, Renderer, RenderSession
from metaportrait_cli.pipeline.sampling import (
    RUN_FRAMES,
    count_frames,
    find_clips,
    pick_runs,
    read_runs,
    sample_runs,
)
from metaportrait_cli.pipeline.scoring import (
    ClipScores,
    Judge,
    People,
    Points,
    Values,
    steadiness,
)
from metaportrait_cli.pipeline.source import MAX_SIDE, Source
from metaportrait_cli.pipeline.stages import Progress, Stopwatch, silent
from metaportrait_cli.weights import bundled_path

Mode = Literal["self", "cross"]
TRUTH = "truth"
SIZE = 256
SOURCE_LOOKS = 250
SHEET_MOMENTS = 3


@dataclass(frozen=True)
class ClipResult:
    """What one clip gave: for each method the mean of each metric over the clip's frames."""

    source: str
    driver: str
    frames: int
    values: dict[str, Values]
    runs_without_face: int = 0


@dataclass(frozen=True)
class Evaluation:
    """All clips, and their summary by method and metric.

    In `self` mode the method `truth` holds the truth's own warping error and jitter, as yardsticks.
    """

    mode: Mode
    size: int
    frames: int
    clips: list[ClipResult] = field(default_factory=list)

    def summary(self) -> dict[str, dict[str, Summary]]:
        """Mean and interval over clips, by method and metric."""
        values = [clip.values for clip in self.clips]
        methods = {
            method: dict.fromkeys(metric for v in values for metric in v[method])
            for method in values[0]
        }
        return {
            method: {
                metric: bootstrap([v[method][metric] for v in values if metric in v[method]])
                for metric in metrics
            }
            for method, metrics in methods.items()
        }

    def as_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes."""
        summary = {
            method: {metric: vars(value) for metric, value in metrics.items()}
            for method, metrics in self.summary().items()
        }
        clips = [vars(clip) for clip in self.clips]
        return {
            "mode": self.mode,
            "size": self.size,
            "frames": self.frames,
            "summary": summary,
            "clips": clips,
        }


@dataclass(frozen=True)
class EvaluateOptions:
    """Settings of one evaluation."""

    mode: Mode = "self"
    weights: tuple[str, ...] = ("none",)
    """Methods besides copying the source, which always takes part."""
    frames: int = 24
    """Frames judged of each clip, in evenly spaced runs of four."""

    def __post_init__(self) -> None:
        if self.mode not in ("self", "cross"):
            raise UsageError(f"--mode {self.mode} is neither 'self' nor 'cross'")
        if self.frames < RUN_FRAMES:
            raise UsageError(f"--frames {self.frames} is less than a run of {RUN_FRAMES}")


def evaluate(
    paths: list[Path],
    options: EvaluateOptions | None = None,
    *,
    sheet: Path | None = None,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> Evaluation:
    """Judges all methods on all clips, and writes a contact sheet where one is wanted.

    Memory doesn't grow with the clips' length. `on_progress` is called with the stage `evaluate`
    and the frames judged. Raises the errors of `metaportrait_cli.errors`: `NoFaceError` if a clip
    has no face to begin with, `MediaError` if it is too short.
    """
    options = options or EvaluateOptions()
    names = list(dict.fromkeys((COPY, *options.weights)))
    renderers = {name: renderer_named(name) for name in names}
    clips = find_clips(paths)
    board = None
    if sheet is not None:
        check_output(sheet, overwrite=overwrite, is_input=clips)
        shown = [name for name in names if name != COPY]  # that is the source, shown anyway
        guide = TRUTH if options.mode == "self" else "driver"
        board = ContactSheet([guide, *shown], groups=SHEET_MOMENTS)

    done = Evaluation(options.mode, SIZE, options.frames)
    with Judge() as judge:
        judged = _self_clips if options.mode == "self" else _cross_clips
        for result in judged(clips, options, judge, renderers, board):
            done.clips.append(result)
            count = sum(clip.frames for clip in done.clips)
            on_progress("evaluate", count, count * len(clips) // len(done.clips))
    if board is not None and sheet is not None:
        board.save(sheet)
    return done


def _self_clips(
    clips: list[Path],
    options: EvaluateOptions,
    judge: Judge,
    renderers: dict[str, Renderer],
    board: ContactSheet | None,
) -> Iterator[ClipResult]:
    for clip in clips:
        source, first = _first_face(clip, judge)
        runs = sample_runs(first=first + 1, stop=count_frames(clip), frames=options.frames)
        if not runs:
            raise MediaError(
                f"{clip}: fewer than {RUN_FRAMES} frames after its first face; give longer clips"
            )
        sessions = _open(renderers, source)
        scores = {name: ClipScores() for name in (TRUTH, *sessions)}
        moments: list[list] = []
        used = 0
        near = source.face.box
        for pictures in read_runs(clip, runs):
            faces = []
            for picture in pictures:
                face = judge.find(picture, near)
                if face is None:
                    break
                near = face.box
                faces.append(source.crop.to_crop(face.points, SIZE))
            if len(faces) < len(pictures):
                continue
            used += 1
            points = np.stack(faces)
            truth = np.stack([source.crop.cut(picture, SIZE) for picture in pictures])
            results = _render(sessions, points)
            seen = judge.look_at(truth, points)
            for name, frames in results.items():
                judge.compare(scores[name], result=frames, truth=seen)
            scores[TRUTH].add("landmark_jitter", [landmark_jitter(points)])
            steadiness(scores, truth, {TRUTH: truth, **results})
            moments.append([truth[0], *_shown(results)])
        if not used:
            raise NoFaceError(
                f"{clip}: no face found in the frames that are judged; give clips with one face"
                " all along"
            )
        for name in sessions:
            scores[name].judge_motion(judge.model)
        if board is not None:
            board.add(clip.stem, source.crop.cut(source.picture, SIZE), _spread(moments))
        yield ClipResult(
            source=str(clip),
            driver=str(clip),
            frames=used * RUN_FRAMES,
            values={name: score.means() for name, score in scores.items()},
            runs_without_face=len(runs) - used,
        )


def _cross_clips(
    clips: list[Path],
    options: EvaluateOptions,
    judge: Judge,
    renderers: dict[str, Renderer],
    board: ContactSheet | None,
) -> Iterator[ClipResult]:
    embeddings = []
    for clip in clips:
        first, _ = _first_face(clip, judge)
        embeddings.append(judge.embedding(first.picture, first.face))
    for driver_index, driver in enumerate(clips):
        source_index = _next_person(driver_index, embeddings)
        if source_index is None:
            raise UsageError("--mode cross needs clips of at least two people")
        source, _ = _first_face(clips[source_index], judge)
        yield _cross_clip(
            source,
            driver,
            people=People(embeddings[source_index], embeddings[driver_index]),
            options=options,
            judge=judge,
            sessions=_open(renderers, source),
            board=board,
        )


def _cross_clip(
    source: Source,
    driver: Path,
    *,
    people: People,
    options: EvaluateOptions,
    judge: Judge,
    sessions: dict[str, RenderSession],
    board: ContactSheet | None,
) -> ClipResult:
    motion = load_motion(
        driver,
        choice=LARGEST_FACE,
        model=bundled_path(LANDMARK_MODEL),
        workers=worker_count(0),
        stopwatch=Stopwatch(),
        on_progress=silent,
    )
    runs = sample_runs(first=0, stop=len(motion.track), frames=options.frames)
    if not runs:
        raise MediaError(f"{driver}: fewer than {RUN_FRAMES} frames; give longer clips")
    performance = Performance(
        track=motion.track,
        source_points=source.face.points,
        model=judge.model,
        options=DriveOptions(),
    )
    frames = (points for window in performance.windows(RUN_FRAMES) for points in window)
    scores = {name: ClipScores() for name in sessions}
    moments: list[list] = []
    for run, driven in zip(runs, pick_runs(enumerate(frames), runs), strict=True):
        wanted = source.crop.to_crop(np.stack(driven), SIZE)
        results = _render(sessions, wanted)
        for name, pictures in results.items():
            judge.compare_people(
                scores[name],
                result=pictures,
                wanted=wanted,
                driver=motion.track.read(run.start, run.stop)["points"],
                people=people,
            )
        moments.append(_shown(results))
    for score in scores.values():
        score.judge_motion(judge.model, source.face.points[None])
    if board is not None:
        guides = read_runs(driver, runs)
        face = motion.track.read(0, 1)["points"][0]
        pictures = [Crop.around(face).cut(run[0], SIZE) for run in guides]
        with_guide = [[a, *b] for a, b in zip(pictures, moments, strict=False)]
        title = f"{source.path.stem} driven by {driver.stem}"
        board.add(title, source.crop.cut(source.picture, SIZE), _spread(with_guide))
    return ClipResult(
        source=str(source.path),
        driver=str(driver),
        frames=len(runs) * RUN_FRAMES,
        values={name: score.means() for name, score in scores.items()},
    )


def _first_face(clip: Path, judge: Judge) -> tuple[Source, int]:
    """The first frame with a face as a source, and its number."""
    with open_frames(clip, max_side=MAX_SIDE) as frames:
        for frame in frames:
            if frame.index == SOURCE_LOOKS:
                break
            look = judge.detector.search if frame.index == 0 else judge.detector.detect
            faces = look(frame.image)
            face = LARGEST_FACE.pick(faces)
            if face is not None:
                crop = Crop.around(face.points)
                return Source(clip, frame.image, face, len(faces), crop), frame.index
    raise NoFaceError(f"{clip}: no face found at its start; give a clip that starts with the face")


def _open(renderers: dict[str, Renderer], source: Source) -> dict[str, RenderSession]:
    return {name: renderer.open(source, size=SIZE) for name, renderer in renderers.items()}


def _render(sessions: dict[str, RenderSession], points: Points) -> dict[str, Frames]:
    return {name: session.render(points) for name, session in sessions.items()}


def _shown(results: dict[str, Frames]) -> list:
    return [frames[0] for name, frames in results.items() if name != COPY]


def _spread(moments: list[list]) -> list[list]:
    """A few moments from the clip's whole length."""
    places = np.linspace(0, len(moments) - 1, min(SHEET_MOMENTS, len(moments)))
    return [moments[round(place)] for place in places]


def _next_person(index: int, embeddings: list[Tensor]) -> int | None:
    """The first clip after this one, around the end, that shows another person."""
    for step in range(1, len(embeddings)):
        other = (index + step) % len(embeddings)
        if other_person(embeddings[index], embeddings[other]):
            return other
    return None
