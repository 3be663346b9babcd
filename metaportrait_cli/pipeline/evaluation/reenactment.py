"""What an evaluation does with clips: drive, render with each method, judge.

Pictures are the source's crop at 256 × 256; in `self_clips` the truth is cut by the same square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.metrics.identity import other_person
from metaportrait_cli.metrics.motion import landmark_jitter
from metaportrait_cli.pipeline.compensation import compensate
from metaportrait_cli.pipeline.compose import all_resized
from metaportrait_cli.pipeline.driver import load_motion, looks_of_faces
from metaportrait_cli.pipeline.evaluation.contact_sheet import ContactSheet
from metaportrait_cli.pipeline.evaluation.sampling import (
    RUN_FRAMES,
    count_frames,
    pick_runs,
    read_runs,
    sample_runs,
)
from metaportrait_cli.pipeline.evaluation.scoring import (
    ClipScores,
    Judge,
    People,
    Points,
    Values,
    mouth_flicker,
    steadiness,
)
from metaportrait_cli.pipeline.performance import DriveOptions, Performance
from metaportrait_cli.pipeline.source import MAX_SIDE
from metaportrait_cli.progress import Stopwatch, silent
from metaportrait_cli.render.named import COPY
from metaportrait_cli.render.protocol import Driven, DriverLooks, Frames, Renderer, Session

TRUTH = "truth"
DRIVEN = "driven"
"""Not a method, but the landmarks that all methods are given: what could arrive at best."""
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


def self_clips(
    clips: list[Path],
    frames: int,
    judge: Judge,
    renderers: dict[str, Renderer],
    board: ContactSheet | None,
) -> Iterator[ClipResult]:
    """Each clip's first face under the landmarks of its own later frames."""
    for clip in clips:
        source, first = first_face(clip, judge)
        runs = sample_runs(first=first + 1, stop=count_frames(clip), frames=frames)
        if not runs:
            raise MediaError(
                f"{clip}: fewer than {RUN_FRAMES} frames after its first face; give longer clips"
            )
        sessions = _open(renderers, source)
        scores = {name: ClipScores() for name in (TRUTH, *sessions)}
        moments: list[list] = []
        for truth, points in followed(source, clip, runs, judge, size=SIZE):
            results = _render(sessions, replace(Driven.of(points), seen=DriverLooks(truth, points)))
            seen = judge.look_at(truth, points)
            for name, result in results.items():
                judge.compare(scores[name], result=result, truth=seen)
            scores[TRUTH].add("landmark_jitter", [landmark_jitter(points)])
            steadiness(scores, truth, {TRUTH: truth, **results})
            mouth_flicker(scores, points, {TRUTH: truth, **results})
            moments.append([truth[0], *_shown(results)])
        for name in sessions:
            scores[name].judge_motion(judge.model)
        if board is not None:
            board.add(clip.stem, source.crop.cut(source.picture, SIZE), spread(moments))
        yield ClipResult(
            source=str(clip),
            driver=str(clip),
            frames=len(moments) * RUN_FRAMES,
            values={name: score.means() for name, score in scores.items()},
            runs_without_face=len(runs) - len(moments),
        )


def cross_clips(
    clips: list[Path],
    frames: int,
    judge: Judge,
    renderers: dict[str, Renderer],
    board: ContactSheet | None,
) -> Iterator[ClipResult]:
    """Each clip drives the first face of the next clip that shows someone else."""
    embeddings = []
    for clip in clips:
        first, _ = first_face(clip, judge)
        embeddings.append(judge.embedding(first.picture, first.face))
    for driver_index, driver in enumerate(clips):
        source_index = _next_person(driver_index, embeddings)
        if source_index is None:
            raise UsageError("`mode` cross needs clips of at least two people")
        source, _ = first_face(clips[source_index], judge)
        yield _cross_clip(
            source,
            driver,
            people=People(embeddings[source_index], embeddings[driver_index]),
            frames=frames,
            judge=judge,
            renderers=renderers,
            board=board,
        )


def _cross_clip(
    source: Source,
    driver: Path,
    *,
    people: People,
    frames: int,
    judge: Judge,
    renderers: dict[str, Renderer],
    board: ContactSheet | None,
) -> ClipResult:
    motion = load_motion(
        driver,
        choice=LARGEST_FACE,
        engine=judge.engine,
        stopwatch=Stopwatch(),
        on_progress=silent,
    )
    runs = sample_runs(first=0, stop=len(motion.track), frames=frames)
    if not runs:
        raise MediaError(f"{driver}: fewer than {RUN_FRAMES} frames; give longer clips")
    sessions = _open(renderers, source)
    scores = {name: ClipScores() for name in (DRIVEN, *sessions)}
    shown = [motion.track.read(run.start, run.stop)["points"] for run in runs]
    looks = _looks(driver, runs, shown, turned=any(motion.turns))
    pictures: dict[str, list[Frames]] = {}
    for name, score in scores.items():
        performance = Performance(
            track=motion.track, source=source, model=judge.model, options=DriveOptions()
        )
        session = sessions.get(name)
        if session is not None and name != COPY and renderers[name].keeps_detail:
            compensate(performance, session, size=SIZE, engine=judge.engine)
        points = (points for window in performance.windows(RUN_FRAMES) for points in window)
        driven_runs = pick_runs(enumerate(points), runs)
        for seen, look, driven in zip(shown, looks, driven_runs, strict=True):
            wanted = source.crop.to_crop(np.stack(driven), SIZE)
            if session is None:
                score.add_faces(wanted, seen)
                continue
            result = all_resized(session.render(replace(Driven.of(wanted), seen=look)).frames, SIZE)
            pictures.setdefault(name, []).append(result)
            judge.compare_people(score, result=result, wanted=wanted, driver=seen, people=people)
    moments = [_shown({n: pictures[n][k] for n in sessions}) for k in range(len(runs))]
    for score in scores.values():
        score.judge_motion(judge.model, source.face.points[None])
    if board is not None:
        guides = read_runs(driver, runs, max_side=None)
        face = motion.track.read(0, 1)["points"][0]
        crop = Crop.around(face, within=(motion.track.width, motion.track.height))
        guiding = [crop.cut(run[0], SIZE) for run in guides]
        with_guide = [[a, *b] for a, b in zip(guiding, moments, strict=False)]
        title = f"{source.path.stem} driven by {driver.stem}"
        board.add(title, source.crop.cut(source.picture, SIZE), spread(with_guide))
    return ClipResult(
        source=str(source.path),
        driver=str(driver),
        frames=len(runs) * RUN_FRAMES,
        values={name: score.means() for name, score in scores.items()},
    )


def _looks(
    driver: Path, runs: list[range], points: list[Points], *, turned: bool
) -> list[DriverLooks | None]:
    """The driver's face in each run, for renderers that read it; of a turned clip none."""
    if turned:
        return [None] * len(runs)
    read = read_runs(driver, runs, max_side=None)
    return [looks_of_faces(*each) for each in zip(read, points, strict=True)]


def followed(
    source: Source, clip: Path, runs: list[range], judge: Judge, *, size: int
) -> Iterator[tuple[Frames, Points]]:
    """The source's crop (T, size, size, 3) and the face's landmarks in it, of each run that shows
    the face throughout. Raises `NoFaceError` if none does."""
    near, some = source.face.box, False
    for pictures in read_runs(clip, runs, max_side=MAX_SIDE):
        points = []
        for picture in pictures:
            face = judge.find(picture, near)
            if face is None:
                break
            near = face.box
            points.append(source.crop.to_crop(face.points, size))
        else:
            some = True
            yield np.stack([source.crop.cut(each, size) for each in pictures]), np.stack(points)
    if not some:
        raise NoFaceError(
            f"{clip}: no face found in the frames that are judged; give clips with one face all"
            " along"
        )


def first_face(clip: Path, judge: Judge) -> tuple[Source, int]:
    """The first frame with a face as a source, and its number."""
    with open_frames(clip, max_side=MAX_SIDE) as frames:
        for frame in frames:
            if frame.index == SOURCE_LOOKS:
                break
            look = judge.detector.search if frame.index == 0 else judge.detector.detect
            faces = look(frame.image)
            face = LARGEST_FACE.pick(faces)
            if face is not None:
                height, width = frame.image.shape[:2]
                crop = Crop.around(face.points, within=(width, height))
                return Source(clip, frame.image, face, len(faces), crop), frame.index
    raise NoFaceError(f"{clip}: no face found at its start; give a clip that starts with the face")


def _open(renderers: dict[str, Renderer], source: Source) -> dict[str, Session]:
    return {name: renderer.open(source, size=SIZE) for name, renderer in renderers.items()}


def _render(sessions: dict[str, Session], driven: Driven) -> dict[str, Frames]:
    return {
        name: all_resized(session.render(driven).frames, SIZE) for name, session in sessions.items()
    }


def _shown(results: dict[str, Frames]) -> list:
    return [frames[0] for name, frames in results.items() if name != COPY]


def spread(moments: list[list]) -> list[list]:
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
