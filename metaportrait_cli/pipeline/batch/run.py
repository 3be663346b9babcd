"""One job: the same function wherever it runs, here, in a worker, or on another machine."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from metaportrait_cli.errors import (
    FfmpegError,
    MediaError,
    MetaPortraitError,
    OutOfMemoryError,
    is_out_of_memory,
    one_line,
)
from metaportrait_cli.media.outputs import is_result
from metaportrait_cli.pipeline.batch.jobs import Job
from metaportrait_cli.pipeline.work import Begun

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.provenance import Signing

Status = Literal["done", "failed", "skipped"]

RETRIED = (FfmpegError, OSError)
"""What may go well the next time; what is wrong with a job's own files and settings doesn't."""


@dataclass(frozen=True)
class BatchOptions:
    """What all jobs have in common."""

    weights: str | None = None
    device: str = "auto"
    precision: str = "auto"
    overwrite: bool = False
    skip_existing: bool = False
    begun: Begun = "ask"
    retries: int = 1
    """Times that a job is tried again after what may go well the next time"""
    label: bool = False
    signing: Signing | None = None
    """As of `AnimateOptions`"""


@dataclass(frozen=True)
class Result:
    """How a job ended."""

    job: int
    output: str
    status: Status
    frames: int = 0
    seconds: float = 0.0
    attempts: int = 1
    error: str = ""
    exit_code: int = 0
    """What a command of its own would have ended with"""
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value not in ("", [])}


def failed(job: Job, error: BaseException, *, attempts: int = 1, seconds: float = 0.0) -> Result:
    """The result of a job that ended with this error."""
    text, code = one_line(str(error)), 1
    if isinstance(error, MetaPortraitError):
        code = error.exit_code
    elif is_out_of_memory(error):
        text, code = "out of memory", OutOfMemoryError.exit_code
    elif isinstance(error, OSError):
        text = f"{error.filename or job.output}: {error.strerror or error}"
        code = MediaError.exit_code
    else:
        text = f"internal error: {type(error).__name__}: {text}"
    return Result(
        job=job.number,
        output=str(job.output),
        status="failed",
        seconds=round(seconds, 3),
        attempts=attempts,
        error=one_line(text),
        exit_code=code,
    )


class Runner:
    """Runs jobs one after the other with one engine, whose weights are loaded once."""

    def __init__(self, options: BatchOptions) -> None:
        from metaportrait_cli.pipeline.engine import Engine  # noqa: PLC0415  takes seconds

        self._options = options
        self._engine = Engine(options.weights, device=options.device, precision=options.precision)

    def run(self, job: Job, *, first: int = 1) -> Result:
        """Never raises for what is wrong with a job: the others go on.

        `first` counts attempts that were made elsewhere, with a worker that was killed.
        """
        options = self._options
        if options.skip_existing and is_result(job.output):
            return Result(job=job.number, output=str(job.output), status="skipped")
        if first > 1 and not options.overwrite and is_result(job.output):
            notes = ["its process was killed when the result was there already"]
            return Result(job.number, str(job.output), "done", attempts=first - 1, notes=notes)
        started = time.perf_counter()
        begun: Begun = options.begun if first == 1 else "resume"
        for attempt in range(first, max(first, options.retries + 1) + 1):
            try:
                return self._once(job, begun, attempt, started)
            except Exception as error:  # noqa: BLE001  told in the result
                passing = isinstance(error, RETRIED) or is_out_of_memory(error)
                last = attempt > options.retries or not passing
                if last:
                    elapsed = time.perf_counter() - started
                    return failed(job, error, attempts=attempt, seconds=elapsed)
            begun = "resume"
        raise AssertionError("the last attempt returns")

    def _once(self, job: Job, begun: Begun, attempt: int, started: float) -> Result:
        from metaportrait_cli.pipeline.animate import animate  # noqa: PLC0415

        report = animate(
            list(job.source),
            job.driver,
            job.output,
            replace(animate_options(job), label=self._options.label, signing=self._options.signing),
            portrait=job.portrait,
            engine=self._engine,
            overwrite=self._options.overwrite,
            begun=begun,
        )
        return Result(
            job=job.number,
            output=str(job.output),
            status="done",
            frames=report.frames,
            seconds=round(time.perf_counter() - started, 3),
            attempts=attempt,
            notes=report.notes,
        )

    def close(self) -> None:
        """Lets go of the engine."""
        self._engine.close()


def animate_options(job: Job) -> Any:
    """The job's settings as `animate` takes them. Raises `UsageError`."""
    from metaportrait_cli.face.track import FaceChoice  # noqa: PLC0415
    from metaportrait_cli.media.encoding import Encoding  # noqa: PLC0415
    from metaportrait_cli.pipeline.animation import AnimateOptions  # noqa: PLC0415
    from metaportrait_cli.pipeline.performance import DriveOptions  # noqa: PLC0415

    settings: dict[str, Any] = dict(job.settings)
    for name in ("face", "source_face"):
        if name in settings:
            settings[name] = FaceChoice.parse(str(settings[name]), field=name)
    encoding = Encoding(settings.pop("codec", "auto"), settings.pop("crf", None))
    own = {each.name for each in fields(DriveOptions)}
    drive = {name: settings.pop(name) for name in list(settings) if name in own}
    return AnimateOptions(drive=DriveOptions(**drive), encoding=encoding, **settings)
