"""What every command shares: results on stdout, all else on stderr, errors as one line."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import typer

from metaportrait_cli.errors import (
    INTERRUPTED_EXIT_CODE,
    MediaError,
    MetaPortraitError,
    OutOfMemoryError,
)

DEBUG_VARIABLE = "METAPORTRAIT_DEBUG"


class Reporter:
    """Shows progress and notes on stderr while a command runs."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: _Bar | _Lines | None = None

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """The callback that library functions take."""
        if self._quiet:
            return
        if self._bar is None:
            self._bar = _Bar() if sys.stderr.isatty() else _Lines()
        self._bar.show(stage, done, total)

    def note(self, text: str) -> None:
        """One line for the user."""
        if not self._quiet:
            self.close()
            typer.echo(f"note: {text}", err=True)

    def say(self, text: str) -> None:
        """Plain text on stderr, unless quiet."""
        if not self._quiet:
            self.close()
            typer.echo(text, err=True)

    def close(self) -> None:
        """Ends the progress display."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Bar:
    """Rich bars with frames a second and time left, for a terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def show(self, stage: str, done: int, total: int | None) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, rate="")
        task = self._tasks[stage]
        speed = self._progress.tasks[task].speed
        rate = f"{speed:.1f} fps" if speed else ""
        self._progress.update(task, completed=done, total=total, rate=rate)

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """A plain line now and then, for logs."""

    SECONDS_BETWEEN = 5.0

    def __init__(self) -> None:
        import time  # noqa: PLC0415

        self._clock = time.monotonic
        self._last = self._clock()
        self._stage = ""
        self._started = self._last

    def show(self, stage: str, done: int, total: int | None) -> None:
        now = self._clock()
        if stage != self._stage:
            self._stage, self._started = stage, now
        finished = total is not None and done == total
        if now - self._last < self.SECONDS_BETWEEN and not finished:
            return
        self._last = now
        rate = done / max(now - self._started, 1e-3)
        of = f"/{total}" if total else ""
        typer.echo(f"{stage}: {done}{of} frames, {rate:.1f} fps", err=True)

    def close(self) -> None:
        pass


@contextmanager
def reporting(*, quiet: bool = False) -> Iterator[Reporter]:
    """Turns the library's errors into one line on stderr and the documented exit code."""
    with Reporter(quiet=quiet) as reporter:
        try:
            yield reporter
        except MetaPortraitError as error:
            raise _exit(reporter, str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise _exit(
                reporter, "interrupted; nothing was written", INTERRUPTED_EXIT_CODE
            ) from error
        except MemoryError as error:
            text = "out of memory; try a smaller --size or --window"
            raise _exit(reporter, text, OutOfMemoryError.exit_code) from error
        except OSError as error:
            # Only our temporary files are written without a name to tell.
            where = f"{error.filename or tempfile.gettempdir()}: "
            text = f"{where}{error.strerror or error}; check space and permissions there"
            raise _exit(reporter, text, MediaError.exit_code) from error
        except (typer.Exit, SystemExit):
            raise
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
                text = "the device ran out of memory; try a smaller --window or --device cpu"
                raise _exit(reporter, text, OutOfMemoryError.exit_code) from error
            if os.environ.get(DEBUG_VARIABLE):
                raise
            text = (
                f"internal error: {type(error).__name__}: {error};"
                f" set {DEBUG_VARIABLE}=1 for the details and report it"
            )
            raise _exit(reporter, text, 1) from error


def _exit(reporter: Reporter, text: str, code: int) -> typer.Exit:
    reporter.close()
    typer.echo(f"error: {' '.join(text.split())}", err=True)
    return typer.Exit(code)


def print_result(path: Path, report: dict[str, Any], *, as_json: bool) -> None:
    """The one thing on stdout: the result's path, or the report as one JSON object."""
    typer.echo(json.dumps(report, ensure_ascii=False) if as_json else str(path))


def write_report(path: Path | None, report: dict[str, Any]) -> None:
    """Writes `--report`, atomically."""
    if path is None:
        return
    from metaportrait_cli.media.outputs import atomic_output  # noqa: PLC0415

    with atomic_output(path) as partial:
        partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
