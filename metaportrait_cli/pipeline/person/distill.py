"""`distill`: a person, as another renderer shows them, learnt by a network that is fast on a CPU.

Several people may go into one file. The teacher opens each once; it is shown motion that nobody
made, and that of clips; its pictures are the lessons. What is done stands in a folder beside the
result until it is finished, so that the same call goes on where it was broken off.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import metaportrait_cli
from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.identity import embed, identity_network
from metaportrait_cli.face.track import LARGEST_FACE, FaceChoice
from metaportrait_cli.media.outputs import atomic_output, claimed, make_folder
from metaportrait_cli.motion.fitting import fit_identity
from metaportrait_cli.motion.imagined import open_face
from metaportrait_cli.motion.retarget import Retargeter
from metaportrait_cli.networks.student import OF_ONE, Student, StudentConfig
from metaportrait_cli.pipeline.engine import Engine, lasting
from metaportrait_cli.pipeline.person.lessons import AT_ONCE, Teacher, clip_motion, imagined_motion
from metaportrait_cli.pipeline.person.onnx_file import export_onnx
from metaportrait_cli.pipeline.person.portrait_file import Portrait, load_portrait
from metaportrait_cli.pipeline.person.student_file import Taught, save_student
from metaportrait_cli.pipeline.source import Picture, load_sources
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.training.data.lessons import Lessons, shard_path, write_shard
from metaportrait_cli.training.distill import Course, DistillTraining, distil, part_of
from metaportrait_cli.training.loop import Record, unheard
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.training.state import LAST
from metaportrait_cli.training.student_start import Person
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network

STUDENT_SUFFIX = ".student"
WORK_SUFFIX = ".distill"
RECIPE, DONE = "recipe.json", "lessons.done"


@dataclass(frozen=True)
class DistillOptions:
    """Settings; see the command's help for what users are told."""

    steps: int = 1200
    lessons: int = 1104
    """Imagined ones"""
    clip_lessons: int = 48
    """Of each clip"""
    face: FaceChoice = LARGEST_FACE
    model: StudentConfig = field(default_factory=StudentConfig)

    def __post_init__(self) -> None:
        if self.lessons <= AT_ONCE:
            raise UsageError(f"`lessons` {self.lessons} is not more than {AT_ONCE}")


@dataclass
class DistillReport:
    """What was done, and how near the student came."""

    inputs: list[str]
    output: str
    settings: dict[str, Any]
    step: int = 0
    steps: int = 0
    people: list[str] = field(default_factory=list)
    lessons: int = 0
    kept: dict[str, float] = field(default_factory=dict)
    """Distances from the teacher on lessons that were not learnt from"""
    parameters: int = 0
    bytes: int = 0
    onnx: str = ""
    seconds: float = 0.0
    version: str = metaportrait_cli.__version__

    def as_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes."""
        return {"command": "distill", **asdict(self)}


def distill(
    output: str | os.PathLike[str],
    options: DistillOptions | None = None,
    *,
    portrait: str | os.PathLike[str] | None = None,
    source: Picture | None = None,
    others: Sequence[str | os.PathLike[str]] = (),
    clips: Sequence[str | os.PathLike[str]] = (),
    onnx: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    on_progress: Progress = silent,
    on_record: Callable[[Record], None] = unheard,
) -> DistillReport:
    """Teaches a student the person of a `portrait` file, or of a `source`, and writes it.

    `others` are portrait files of further people, whom the same student learns by turns; they are
    called as their files are. The engine's renderer is the teacher. `clips` lend motion besides
    what is imagined. If `run` stops early what is learnt so far is written, and the same call goes
    on. `on_progress` is called with the stages `landmarks` and `teach`. Raises the errors of
    `metaportrait_cli.errors`.
    """
    options, run, output = options or DistillOptions(), run or RunOptions(), Path(output)
    onnx, paths = None if onnx is None else Path(onnx), [Path(clip) for clip in clips]
    if (portrait is None) == (source is None):
        raise UsageError("give either `portrait` or `source`")
    given = [portrait if source is None else source, *others, *paths]
    inputs = [Path(each) for each in given if isinstance(each, (str, os.PathLike))]
    folder = output.with_name(f"{output.name}{WORK_SUFFIX}")
    started = time.perf_counter()
    with (
        # What an unfinished run has written so far is its own to replace.
        claimed(output, onnx, overwrite=overwrite or folder.exists(), is_input=inputs),
        lasting(engine) as loaded,
    ):
        if portrait is not None:
            known = load_portrait(Path(portrait))
            people = {_name(portrait): known}
        else:
            assert source is not None  # noqa: S101  one of both, as was seen above
            known = portrait_of_source(source, options.face, engine=loaded)
            people = {_name(known.source.path): known}
        for other in others:
            if _name(other) in people:
                raise UsageError(
                    f"{other}: somebody else is called {_name(other)}; rename the file"
                )
            people[_name(other)] = load_portrait(Path(other))
        if onnx is not None and len(people) > 1:
            raise UsageError("`onnx` is of one person: leave the others out")
        make_folder(folder)
        teachers = [
            _teacher(person, options, loaded, as_it_is=source is not None and person is known)
            for person in people.values()
        ]
        weights = dict(item for teacher in teachers for item in teacher.weights.items())
        recipe = {
            **{name: value for name, value in asdict(options).items() if name != "steps"},
            "inputs": [(str(path.resolve()), path.stat().st_size) for path in inputs],
            "teacher": weights,
        }
        _check_recipe(folder, recipe)
        courses = []
        for number, teacher in enumerate(teachers):
            own = folder / str(number)
            make_folder(own)
            _teach(teacher, own, options, paths, on_progress=on_progress)
            courses.append(Course(person_of(teacher), Lessons(own)))
        card = distil(
            DistillTraining(model=options.model, steps=options.steps),
            courses,
            folder,
            options=run,
            perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
            on_record=on_record,
        )
        taught = [
            Taught(name, person, load_network(Student, folder / LAST, part=part_of(number)))
            for number, (name, person) in enumerate(people.items())
        ]
        save_student(output, taught, notes=card)
        if onnx is not None:
            export_onnx(taught[0].network.float(), onnx)
    if card["step"] >= options.steps:
        shutil.rmtree(folder)
    return DistillReport(
        inputs=[str(path) for path in inputs],
        output=str(output),
        settings={**loaded.settings(), **asdict(options), "teacher": weights},
        step=card["step"],
        steps=options.steps,
        people=list(people),
        lessons=card["lessons"],
        kept=card["held_out"].get("kept", {}),
        parameters=sum(
            values.numel()
            for number, each in enumerate(taught)
            for name, values in each.network.named_parameters()
            if number == 0 or name in OF_ONE
        ),
        bytes=output.stat().st_size,
        onnx="" if onnx is None else str(onnx),
        seconds=round(time.perf_counter() - started, 1),
    )


def portrait_of_source(source: Picture, choice: FaceChoice, *, engine: Engine) -> Portrait:
    """What `personalize` would make of one picture, which leaves nothing to be judged by."""
    opened = load_sources([source], choice=choice, detector=engine.detector)
    points = opened.face.points[None]
    embedding = embed(identity_network(), opened.picture[None], points)[0].numpy()
    return Portrait(
        source=opened, shape=fit_identity(engine.face_model, points), embedding=embedding
    )


def retargeter_of(portrait: Portrait, engine: Engine) -> Retargeter:
    """The person, ready to be driven."""
    faces = [view.face for view in portrait.views]
    shapes = np.stack([face.blendshapes for face in faces])
    return Retargeter(
        model=engine.face_model,
        source_landmarks=np.stack([face.points for face in faces]),
        source_blendshapes=shapes if shapes.any() else None,
    )


def person_of(teacher: Teacher) -> Person:
    """The person's own picture, and one with an open mouth and shut eyes."""
    retargeter, source = teacher.retargeter, teacher.source
    wide = teacher.in_crop(open_face(retargeter.model, retargeter.rest)[None])
    pictures, _ = teacher.pictures(wide)
    own = source.crop.cut(source.picture, teacher.size)
    return Person(
        pictures=np.stack([own, *pictures]),
        points=np.concatenate([teacher.in_crop(source.face.points[None]), wide]),
    )


def _teacher(
    known: Portrait, options: DistillOptions, engine: Engine, *, as_it_is: bool
) -> Teacher:
    """The engine's renderer, `as_it_is` or with what a portrait adds to it, and the person opened.
    Raises `UsageError` for one that can't teach."""
    rendering = engine.rendering(None if as_it_is else known)
    if rendering.reads_driver:
        raise UsageError(
            f"{engine.named(known)}: reads expressions in a driver's pictures, which lessons"
            " don't have; other weights can teach"
        )
    size = options.model.size
    session = rendering.renderer.open(known.source, size=size)
    retargeter = retargeter_of(known, engine)
    return Teacher(known.source, session, engine, size, retargeter, dict(rendering.weights))


def _name(file: str | os.PathLike[str]) -> str:
    """What somebody is called, whose file that is: no colon, which stands before names."""
    return Path(file).stem.replace(":", "-")


def _check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Writes down what the folder's lessons are made of. Raises `UsageError` for others' folder."""
    written, text = folder / RECIPE, json.dumps(recipe, sort_keys=True)
    if not written.exists():
        with atomic_output(written) as partial:
            partial.write_text(text)
    elif written.read_text() != text:
        raise UsageError(
            f"{folder}: holds what was begun with other settings or inputs; delete it, or choose"
            " another output"
        )


def _teach(
    teacher: Teacher,
    folder: Path,
    options: DistillOptions,
    clips: Sequence[Path],
    *,
    on_progress: Progress,
) -> None:
    """Fills the folder with lessons, unless they are there."""
    done = folder / DONE
    if done.exists():
        return
    motion = chain(
        imagined_motion(teacher, options.lessons),
        clip_motion(teacher, clips, most=options.clip_lessons, on_progress=on_progress),
    )
    total = options.lessons + len(clips) * options.clip_lessons
    count = 0
    for number, points in enumerate(motion):
        path = shard_path(folder, number)
        if not path.exists():
            write_shard(path, points, *teacher.pictures(points))
        count += len(points)
        on_progress("teach", count, total)
    done.touch()
