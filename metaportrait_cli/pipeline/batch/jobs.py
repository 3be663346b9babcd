"""Jobs of a batch, from a manifest or from all sources with all drivers.

A manifest is JSON Lines: one object a line, with `source` (a path, or a list of paths) or
`portrait`, `driver`, `output`, and whatever of `SETTINGS` differs from the default. Paths are taken
from the manifest's folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from metaportrait_cli.errors import UsageError

LONGEST_LINE = 1 << 20
PATHS = ("source", "portrait", "driver", "output")


@dataclass(frozen=True)
class Job:
    """One re-enactment."""

    number: int
    """From 1, over the whole batch"""
    driver: Path
    output: Path
    source: tuple[Path, ...] = ()
    portrait: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By the names in `SETTINGS`"""

    @property
    def inputs(self) -> list[Path]:
        """All files that it reads."""
        return [*self.source, *([] if self.portrait is None else [self.portrait]), self.driver]


def _is(*kinds: type) -> Callable[[Any], bool]:
    """A test for these types, in which a number is no truth value."""

    def fits(value: Any) -> bool:
        if isinstance(value, float) and not isfinite(value):
            return False
        return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))

    return fits


def _time(value: Any) -> bool:
    return _is(int, float)(value) and value >= 0


def _one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


def _face(value: Any) -> bool:
    return value == "largest" or (_is(int)(value) and value >= 1)


SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "motion": (_one_of("relative", "absolute"), "relative or absolute"),
    "region": (_is(str), "parts of the motion such as lips or lips,eyes=0.5"),
    "framing": (_one_of("auto", "source", "driver"), "auto, source or driver"),
    "strength": (_is(int, float), "a number"),
    "yaw": (_is(int, float), "a number of degrees"),
    "pitch": (_is(int, float), "a number of degrees"),
    "roll": (_is(int, float), "a number of degrees"),
    "smooth": (_is(bool), "true or false"),
    "reference_frame": (_is(int), "a frame number"),
    "face": (_face, '"largest" or a number from 1'),
    "source_face": (lambda v: v == "all" or _face(v), '"largest", "all" or a number from 1'),
    "start": (_time, "a time in seconds"),
    "end": (_time, "a time in seconds"),
    "full": (_is(bool), "true or false"),
    "size": (_is(int), "a number of pixels"),
    "compare": (_is(bool), "true or false"),
    "codec": (_one_of("auto", "h264", "h265", "vp9", "png"), "auto, h264, h265, vp9 or png"),
    "crf": (_is(int), "a number"),
    "audio": (_is(bool), "true or false"),
    "window": (_is(int), "a number of frames"),
}
"""What a job may set, and what it may be set to."""


def read_jobs(manifest: Path) -> list[Job]:
    """All jobs of a manifest. Raises `UsageError` with the line's number for what is none."""
    jobs: list[Job] = []
    lines: list[int] = []
    try:
        if not manifest.is_file():
            what = "a folder" if manifest.is_dir() else "no such file"
            raise UsageError(
                f"{manifest}: {what}; give a list of jobs, one JSON object a line, or patterns of"
                " `sources` and `drivers`"
            )
        with manifest.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if line.strip():
                    where = f"{manifest} line {number}"
                    jobs.append(_job(_parsed(line, where), len(jobs) + 1, manifest.parent, where))
                    lines.append(number)
    except OSError as error:
        raise UsageError(f"{manifest} can't be read: {error.strerror}") from error
    if not jobs:
        raise UsageError(f"{manifest}: no job in it; a job is a JSON object, one a line")
    _check_apart(jobs, [f"{manifest} line {number}" for number in lines])
    return jobs


def all_pairs(sources: Sequence[Path], drivers: Sequence[Path], pattern: str) -> list[Job]:
    """Every source under every driver; `pattern` names the outputs by `{source}` and `{driver}`,
    the names of the files without their suffixes. Raises `UsageError`."""
    if not sources or not drivers:
        missing = "sources" if not sources else "drivers"
        raise UsageError(f"`{missing}`: no file has such a name; quote the pattern")
    jobs = []
    for source in sources:
        for driver in drivers:
            try:
                name = pattern.format(source=source.stem, driver=driver.stem)
            except (LookupError, ValueError, AttributeError) as error:
                raise UsageError(
                    f"`pattern` {pattern!r}: may hold {{source}} and {{driver}}, and nothing else"
                    " in braces"
                ) from error
            jobs.append(Job(len(jobs) + 1, driver=driver, output=Path(name), source=(source,)))
    _check_apart(jobs, [f"{job.source[0]} with {job.driver}" for job in jobs])
    return jobs


def shard(jobs: Sequence[Job], text: str) -> list[Job]:
    """Part i of n, written i/n, from 1: every n-th job. Raises `UsageError`."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(f"`shard` {text!r}: write i/n with i from 1 to n, such as 1/8")
    return list(jobs[int(part) - 1 :: int(parts)])


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where}: no JSON: {error}; a list of jobs is JSON Lines, one object in braces a line"
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"{where}: a job is an object in braces, not {type(found).__name__}")
    return found


def _job(found: dict[str, Any], number: int, folder: Path, where: str) -> Job:
    for name in found:
        if name not in (*PATHS, *SETTINGS):
            known = ", ".join((*PATHS, *SETTINGS))
            raise UsageError(f"{where}: unknown key {name!r}; known are {known}")
    settings = {name: value for name, value in found.items() if name in SETTINGS}
    for name, value in settings.items():
        fits, words = SETTINGS[name]
        if not fits(value):
            raise UsageError(f"{where}: {name} is {json.dumps(value)[:80]}, not {words}")
    for name in ("driver", "output"):
        if name not in found:
            raise UsageError(f"{where}: {name!r} is missing")
    if ("source" in found) == ("portrait" in found):
        raise UsageError(f"{where}: give either source or portrait")
    source = found.get("source", [])
    return Job(
        number,
        driver=_path(found["driver"], folder, f"{where}: driver"),
        output=_path(found["output"], folder, f"{where}: output"),
        source=tuple(
            _path(each, folder, f"{where}: source")
            for each in (source if isinstance(source, list) else [source])
        ),
        portrait=(
            _path(found["portrait"], folder, f"{where}: portrait") if "portrait" in found else None
        ),
        settings=settings,
    )


def _path(value: Any, folder: Path, where: str) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError(f"{where} is {json.dumps(value)[:80]}, not a path")
    return folder / value


def _check_apart(jobs: Iterable[Job], places: Sequence[str]) -> None:
    """Raises `UsageError` where one job would replace what another writes or reads."""
    jobs = list(jobs)
    writers: dict[Path, str] = {}
    for job, place in zip(jobs, places, strict=True):
        other = writers.setdefault(job.output.absolute(), place)
        if other != place:
            raise UsageError(f"{place}: writes {job.output} as {other} does; name another output")
    for job, place in zip(jobs, places, strict=True):
        for path in job.inputs:
            other = writers.get(path.absolute())
            if other is not None:
                raise UsageError(f"{place}: reads {path}, which {other} writes; run them apart")
