"""All that the source alone decides: which renderer at what size, and its session.

It is found and made while the driver is still being looked at, which leaves a core idle.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction

from metaportrait_cli.face.source import Source
from metaportrait_cli.motion.compensation import Compensation
from metaportrait_cli.motion.retarget import Retargeter
from metaportrait_cli.pipeline.compensation import needed
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.performance import DriveOptions, retargeter_of
from metaportrait_cli.pipeline.source import with_headroom
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.opening import Rendering
from metaportrait_cli.render.protocol import Renderer, Session
from metaportrait_cli.stages import Once

ENOUGH = 1.25
"""A result that is at most so many times larger than what was rendered is enlarged plainly."""
MOST_DOUBLINGS = 2


@dataclass(frozen=True)
class Preparation:
    """A source under a renderer, for pictures of `size` before they are enhanced."""

    source: Source
    rendering: Rendering
    size: int
    notes: list[str] = field(default_factory=list)
    """For the user"""
    ready: OpenedSource | None = None
    """A session that nobody uses yet, if one is there"""

    def expect_turns(self) -> None:
        """See `Session`."""
        if self.ready is not None:
            self.ready.session.expect_turns()


@dataclass(frozen=True)
class OpenedSource:
    """A source's session for a clip of a rate, and what is known of its pictures."""

    session: Session
    rate: Fraction
    retargeter: Retargeter
    compensation: Once[Compensation | None]
    """What the pictures need if others than the person drive them"""


class Preparing:
    """Sources found and prepared on a thread, one thing after another."""

    def __init__(
        self,
        thread: ThreadPoolExecutor,
        engine: Engine,
        drive: DriveOptions,
        *,
        load: Callable[[], Rendering],
        find: Callable[[], list[Source]],
        side: Callable[[Source], int],
        asked: bool,
    ) -> None:
        """`side` tells that of results of a source; for the rest see `prepared`."""
        self._thread, self._engine, self._drive = thread, engine, drive
        self._side, self._asked = side, asked
        self._loading, self._finding = thread.submit(load), thread.submit(find)
        self._first: Future[Preparation] | None = None

    def open_first(self, rate: Fraction) -> None:
        """The first source is opened for a clip of a rate, as soon as it is found."""
        self._first = self._thread.submit(self._prepared, 0, rate)

    def expect_turns(self) -> None:
        """See `Session`; after `open_first`."""
        first = self._first
        if first is not None:
            self._thread.submit(lambda: first.result().expect_turns())

    def heeded(self, on_progress: Progress) -> Progress:
        """The callback, raising what is wrong with the sources once that is known."""

        def told(stage: str, done: int, total: int | None) -> None:
            if self._finding.done():
                self._finding.result()
            on_progress(stage, done, total)

        return told

    @property
    def failed(self) -> bool:
        """Whether something is wrong with the sources."""
        return self._finding.exception() is not None

    def sources(self) -> list[Source]:
        """Those that were found; raises what is wrong with them."""
        return self._finding.result()

    def every(self) -> list[Preparation]:
        """All of them, ready."""
        first = self._prepared(0, None) if self._first is None else self._first.result()
        return [first, *(self._prepared(each, None) for each in range(1, len(self.sources())))]

    def _prepared(self, number: int, rate: Fraction | None) -> Preparation:
        rendering = self._loading.result()
        source = framed(self.sources()[number], rendering.renderer)
        return prepared(
            rendering,
            source,
            self._drive,
            wanted=self._side(source),
            asked=self._asked,
            rate=rate,
            engine=self._engine,
        )


def framed(source: Source, *renderers: Renderer) -> Source:
    """As all the renderers take it: with room around the head, or as their networks were taught."""
    if all(each.keeps_detail and each.fixed_size is None for each in renderers):
        return with_headroom(source)
    return source


def prepared(
    rendering: Rendering,
    source: Source,
    drive: DriveOptions,
    *,
    wanted: int,
    asked: bool,
    rate: Fraction | None,
    engine: Engine,
) -> Preparation:
    """For results of side `wanted`; opened where a `rate` is known and opening is quiet.

    Super-resolution follows where the size needs it. Where the renderer takes detail from the
    source, that was nearer to the truth than what super-resolution makes of a smaller picture: it
    must be `asked` for. After mere paint it is the rule.
    """
    size, notes = wanted, list[str]()
    renderer = rendering.renderer
    own = renderer.fixed_size or source.crop.side + source.crop.side % 2
    doublings = doublings_for(size, own=own)
    if doublings and rendering.enhancer is None and (asked or not renderer.keeps_detail):
        from metaportrait_cli.render.enhanced import super_resolved  # noqa: PLC0415  needs torch

        enhanced = super_resolved(
            rendering,
            own=own,
            doublings=doublings,
            asked=asked,
            device=engine.device,
            precision=engine.precision,
            on_notice=notes.append,
        )
        if enhanced is not None:
            rendering, size = enhanced, own
    found = Preparation(source, rendering, size, notes)
    # Who paints whole pictures takes long to open, and tells how far it is.
    if rate is None or not renderer.keeps_detail:
        return found
    with engine.telling(notes.append, silent):
        ready = opened(found, drive, rate=rate, engine=engine)
        ready.compensation()
    return replace(found, ready=ready)


def opened(
    prepared: Preparation, drive: DriveOptions, *, rate: Fraction, engine: Engine
) -> OpenedSource:
    """With a session for a clip of this rate."""
    source, size, renderer = prepared.source, prepared.size, prepared.rendering.renderer
    session = renderer.open(source, size=size, rate=rate)
    retargeter = retargeter_of(source, engine.face_model, drive)

    def compensation() -> Compensation | None:
        if not renderer.keeps_detail:  # it takes seconds for each picture
            return None
        return needed(
            source, retargeter, session, strengths=drive.strengths, size=size, engine=engine
        )

    return OpenedSource(session, rate, retargeter, Once(compensation))


def doublings_for(size: int, *, own: int) -> int:
    """How often a picture of side `own` is doubled for a result of side `size`."""
    count = 0
    while count < MOST_DOUBLINGS and size > ENOUGH * (own << count):
        count += 1
    return count
