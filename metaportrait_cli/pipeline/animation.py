"""A portrait under a driver's motion, as pictures. The way of a frame, in order."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MetaPortraitError, UsageError, check_given, check_kinds
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import LARGEST_FACE, FaceChoice
from metaportrait_cli.media.encoding import USUAL, Encoding
from metaportrait_cli.media.given import Clip
from metaportrait_cli.media.segments import Segments
from metaportrait_cli.media.span import Span
from metaportrait_cli.pipeline.compose import Composition
from metaportrait_cli.pipeline.driver import (
    Driver,
    DriverFaces,
    DriverMotion,
    as_driver,
    check_declared,
    check_reference,
    decoding,
    load_motion,
)
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.performance import DriveOptions, Performance
from metaportrait_cli.pipeline.person.portrait_file import load_portrait
from metaportrait_cli.pipeline.preparation import OpenedSource, Preparation, Preparing, opened
from metaportrait_cli.pipeline.provenance import Signing
from metaportrait_cli.pipeline.report import (
    RunReport,
    describe_motion,
    describe_performance,
    describe_source,
)
from metaportrait_cli.pipeline.source import Picture, listed, load_faces, name_of
from metaportrait_cli.pipeline.work import Notes, Work
from metaportrait_cli.progress import Progress, Stopwatch, silent
from metaportrait_cli.render.protocol import Driven, Frames, Session
from metaportrait_cli.stages import aside, prefetched

CROP_SIZE = 512
"""Side of the result in pixels that shows the crop alone, unless another is asked for."""


@dataclass(frozen=True)
class AnimateOptions:
    """Settings of one run; see the command's help for what users are told."""

    face: FaceChoice = LARGEST_FACE
    source_face: FaceChoice = LARGEST_FACE
    drive: DriveOptions = field(default_factory=DriveOptions)
    full: bool = True
    """Paste back into the whole picture, or give the crop alone."""
    size: int | None = None
    """Side of the face's crop in pixels; by default the source's own, and 512 where `full` is off.
    One that is asked for gets super-resolution where the renderer can't fill it."""
    at_most: int | None = None
    """Side that the crop doesn't exceed where no `size` is asked for: a first look"""
    compare: bool = False
    audio: bool = True
    start: float = 0.0
    end: float | None = None
    """Seconds of the driver between which it is shown"""
    window: int = 8
    """Frames a renderer gets at a time."""
    encoding: Encoding = USUAL
    label: bool = False
    """Whether what is made says, in a corner, what it is."""
    signing: Signing | None = None
    """With what the finished clip is signed."""

    def __post_init__(self) -> None:
        check_kinds(self)
        if not 0 <= self.drive.strength <= 3:
            raise UsageError(f"`strength` {self.drive.strength} is not between 0 and 3")
        if self.size is not None and (self.size % 2 or not 64 <= self.size <= 2048):
            raise UsageError(f"`size` {self.size} is not an even number between 64 and 2048")
        if self.window < 1:
            raise UsageError(f"`window` {self.window} is not a positive number")
        if self.source_face.every and not self.full:
            raise UsageError("`source_face` all shows the whole picture, not one face's crop")
        self.span  # noqa: B018  raises what is wrong with it

    def side(self, source: Source) -> int:
        """Of the crop in the result of a source."""
        own = source.crop.side + source.crop.side % 2
        return self.size or min(own if self.full else CROP_SIZE, self.at_most or own)

    @property
    def span(self) -> Span:
        """The part of the driver that is shown."""
        return Span.of(self.start, self.end)


@dataclass(frozen=True)
class TimedPicture:
    """One picture of a result."""

    time: Fraction
    """Seconds since the first one"""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB"""


@dataclass
class Animation:
    """A portrait under a driver's motion, opened: the driver is known, pictures are to come."""

    prepared: Preparation
    motion: DriverMotion
    options: AnimateOptions
    report: RunReport
    engine: Engine
    on_progress: Progress
    beside: list[Animation] = field(default_factory=list)
    """Further faces of the picture, each alone under the same motion"""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def open(
        cls,
        engine: Engine,
        source: Picture | Sequence[Picture] | None,
        driver: Driver,
        options: AnimateOptions | None = None,
        *,
        portrait: str | os.PathLike[str] | None = None,
        motion: DriverMotion | None = None,
        work: Work | None = None,
        on_progress: Progress = silent,
    ) -> Animation:
        """Finds the face in the source and in all of the driver.

        The first source gives the picture; further ones of the same person help in other poses. A
        `portrait` file, made by `personalize`, stands in place of sources. Sources are paths or
        arrays (H, W, 3), a driver is a path or a `Clip` of frames. `on_progress` is called with
        the stages `landmarks` and `render`. `motion` is the driver's where it is known already;
        what is found of it is kept in the `work`. Raises the errors of `metaportrait_cli.errors`.
        """
        check_given(cls.open, engine=engine, options=options, portrait=portrait)
        options = options or AnimateOptions()
        stopwatch = Stopwatch()
        sources = listed(source)
        if bool(sources) == (portrait is not None):
            raise UsageError("give either `source` or `portrait`")
        if options.source_face.every and len(sources) != 1:
            raise UsageError("`source_face` all is of one picture alone")
        driver = as_driver(driver)
        if options.compare and isinstance(driver, Clip) and not driver.lasts:
            raise UsageError("`compare` reads the driver twice: give its frames as a list")
        shown = sources if portrait is None else [portrait]
        report = RunReport(
            command="animate",
            inputs={
                "source": [name_of(each) for each in shown],
                "driver": driver.name if isinstance(driver, Clip) else str(driver),
            },
            output="",
            settings={**engine.settings(), **asdict(options)},
        )
        if isinstance(driver, Path):
            check_declared(driver, options.drive.reference_frame, options.span)
        unknown = decoding(driver, options.span) if motion is None else nullcontext()
        # What has looked for faces takes 30 MB, and a tenth of a second to be there again. Whatever
        # happens, it is closed here: left to Python's collector it may wait for itself forever.
        with closing(engine.detector) as detector, aside() as meanwhile, unknown as frames:
            person = None if portrait is None else load_portrait(Path(portrait))
            engine.check(person)

            def find() -> list[Source]:
                if person is not None:
                    return [person.source]
                with stopwatch("source"):
                    return load_faces(sources, choice=options.source_face, detector=detector)

            preparing = Preparing(
                meanwhile,
                engine,
                options.drive,
                load=lambda: engine.rendering(person),
                find=find,
                side=options.side,
                asked=options.size is not None,
            )
            if motion is None:
                detector.prepare()
            begun = work is not None and work.exists
            try:
                motion = motion or load_motion(
                    driver,
                    frames,
                    choice=options.face,
                    engine=engine,
                    stopwatch=stopwatch,
                    on_progress=preparing.heeded(on_progress),
                    work=work,
                    span=options.span,
                    on_rate=preparing.open_first,
                    on_turn=preparing.expect_turns,
                )
            except MetaPortraitError:
                if preparing.failed and work is not None and not begun:
                    work.discard()
                preparing.sources()  # raises what is wrong with them: it is told first
                raise
            found = preparing.sources()
            describe_source(report, found[0], together=len(found))
            describe_motion(report, motion)
            check_reference(options.drive.reference_frame, len(motion.track))
            with stopwatch("source"):
                every = preparing.every()
        ready = every[0]
        report.notes += [note for each in every for note in each.notes]
        report.weights = dict(ready.rendering.weights)
        report.settings["weights"] = engine.named(person)
        animation = cls(
            prepared=ready,
            motion=motion,
            options=options,
            report=report,
            engine=engine,
            on_progress=on_progress,
            stopwatch=stopwatch,
        )
        for face in every[1:]:
            own = replace(options, compare=False, label=False)
            other = replace(
                animation, prepared=face, options=own, report=replace(report, notes=[]), beside=[]
            )
            animation.beside.append(other)
        return animation

    @property
    def source(self) -> Source:
        """The portrait."""
        return self.prepared.source

    @property
    def rate(self) -> Fraction:
        """Pictures a second, exactly."""
        return self.motion.track.rate

    @property
    def frames(self) -> int:
        """How many pictures there will be: one for each of the driver's."""
        return len(self.motion.track)

    @property
    def sound(self) -> Path | None:
        """The file whose sound belongs to the pictures, if it is wanted."""
        return self.motion.sound if self.options.audio else None

    @property
    def can_go_on(self) -> bool:
        """Whether pictures can be made without all those before them, from notes of these."""
        enhancer = self.prepared.rendering.enhancer
        return not self.beside and (enhancer is None or enhancer.reach is not None)

    def pictures(self, start: int = 0, segments: Segments | None = None) -> Iterator[TimedPicture]:
        """The pictures in order from number `start` on, made as they are asked for.

        What it takes to go on with one of the `segments` is noted, and read where that is done.
        Raises `UsageError` after `close`.
        """
        if self.motion.track.closed:
            raise UsageError(
                "this animation is closed: open it anew, or ask within its `with` block"
            )
        rendering, stopwatch = self.prepared.rendering, self.stopwatch
        notes = Notes.of(segments if self.can_go_on else None, start, rendering.enhancer)
        with self.engine.telling(self.report.notes.append, self.on_progress):
            with stopwatch("source"):
                ready = self._ready()
                performance = Performance(
                    track=self.motion.track,
                    source=self.source,
                    model=self.engine.face_model,
                    options=self.options.drive,
                    own_clip=self.motion.driver == self.source.path,
                    ready=ready.retargeter,
                )
                if not performance.same_person:
                    performance.retargeter.compensation = ready.compensation()
            rendered: Iterable[Frames] = stopwatch.timed(
                "render", self._rendered(ready.session, performance, notes)
            )
            if rendering.enhancer is not None:
                rendered = stopwatch.timed("enhance", rendering.enhancer.enhance(rendered))
            rendered = _without(rendered, start - notes.entry)
            for number, image in enumerate(self._composed(rendered, start=start), start):
                yield TimedPicture(number / self.rate, image)
        describe_performance(self.report, performance, frames=self.frames)
        told = (note for other in self.beside for note in other.report.notes)
        self.report.notes += [note for note in dict.fromkeys(told) if note not in self.report.notes]

    def close(self) -> None:
        """Lets go of the driver's landmarks."""
        self.motion.track.close()

    def __enter__(self) -> Animation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self) -> OpenedSource:
        """A session that nobody else uses."""
        ready, self.prepared = self.prepared.ready, replace(self.prepared, ready=None)
        if ready is None or ready.rate != self.rate:
            ready = opened(self.prepared, self.options.drive, rate=self.rate, engine=self.engine)
        return ready

    def _rendered(
        self, session: Session, performance: Performance, notes: Notes
    ) -> Iterator[Frames]:
        """Windows of frames from the notes' entry on, divided as those of the whole clip are."""
        session.recall(notes.memory)  # compensating has rendered what is no frame of the clip
        memory, last = session.memory(), notes.entry
        notes.leave(memory, last)
        with (
            closing(self._driven(performance, notes.entry)) as windows,
            closing(session.stream(windows)) as stream,
        ):
            for rendered in stream:
                first, last = last, last + len(rendered.frames)
                notes.leave(memory, first, until=last)
                memory = session.memory()
                notes.leave(memory, last)
                yield rendered.frames

    def _driven(self, performance: Performance, entry: int) -> Generator[Driven, None, None]:
        """The windows that begin with frame `entry` or later."""
        first = 0
        windows = self.stopwatch.timed("retarget", performance.windows(self.options.window))
        with ExitStack() as stack:
            faces = None
            if self.prepared.rendering.reads_driver:
                faces = stack.enter_context(closing(DriverFaces(self.motion)))
            # While one window is rendered the next one's motion is found.
            for points in stack.enter_context(closing(prefetched(windows, depth=1))):
                landmarks = self.source.crop.to_crop(points, self.prepared.size)
                driven = Driven.of(landmarks, first=first)
                if faces is not None:
                    driven = replace(driven, seen=faces.next(len(points)))
                if first >= entry:
                    yield driven
                first += len(points)

    def _composed(self, rendered: Iterable[Frames], *, start: int) -> Iterator[NDArray[np.uint8]]:
        """Output pictures (H, W, 3), one a frame from number `start` on."""
        options = self.options
        compose = Composition(
            [self.source, *(other.source for other in self.beside)],
            side=None if options.full else options.size or CROP_SIZE,
            compare=options.compare,
            label=options.label,
        )
        others = [other.pictures(start) for other in self.beside]
        with closing(self.motion.pictures()) as driver:
            if options.compare:
                next(islice(driver, start, start), None)
            for window in rendered:
                for crop in window:
                    with self.stopwatch("compose"):
                        beside = [next(each).image for each in others]
                        seen = next(driver, None) if options.compare else None
                        picture = compose(crop, beside, driver=seen)
                    yield picture


def _without(windows: Iterable[Frames], count: int) -> Iterator[Frames]:
    """Windows of frames, the first `count` frames left out."""
    for window in windows:
        if count < len(window):
            yield window[count:]
        count = max(count - len(window), 0)
