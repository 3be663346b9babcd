"""What every command shares: results on stdout, all else on stderr, errors as one line."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

import typer

from metaportrait_cli.cli.display import Display, Step
from metaportrait_cli.errors import (
    INTERRUPTED_EXIT_CODE,
    MediaError,
    MetaPortraitError,
    OutOfMemoryError,
    UsageError,
    counted,
    is_out_of_memory,
    one_line,
)
from metaportrait_cli.imports import cure, is_missing_library

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.report import RunReport

DEBUG_VARIABLE = "METAPORTRAIT_DEBUG"
OPTION_NAMES: ContextVar[dict[str, str]] = ContextVar("option_names", default={})  # noqa: B039
"""The running command's parameters by name, as users write them; `Command` sets it."""
_FIELD = re.compile(r"`([a-z_]+)`")


def in_option_names(text: str) -> str:
    """The library's words for the user: fields that it names in backticks become options."""
    names = OPTION_NAMES.get()
    return _FIELD.sub(lambda found: names.get(found[1], found[0]), text)


def tell(text: str) -> None:
    """A line on stderr; work goes on where nobody reads it."""
    try:
        typer.echo(text, err=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


class Reporter:
    """Shows progress and notes on stderr while a command runs."""

    def __init__(self, *, quiet: bool, verbose: bool = False, **parts: Step | float) -> None:
        self._quiet = quiet
        self.verbose = verbose
        self._display = Display(tell, parts)
        self._claims = ExitStack()

    def claim(
        self, *outputs: Path | None, overwrite: bool, apart_from: Iterable[Path | None] = ()
    ) -> None:
        """Checks what the command itself will write, and keeps it until the end; before the work.

        Raises `UsageError`.
        """
        from metaportrait_cli.media.outputs import claimed  # noqa: PLC0415

        others = [path for path in apart_from if path is not None]
        self._claims.enter_context(claimed(*outputs, overwrite=overwrite, is_input=others))

    def expect(self, **parts: Step | float) -> None:
        """The stages to come, where they are not known from the start; see `Display`."""
        self._display = Display(tell, parts)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """The callback that library functions take."""
        if not self._quiet:
            self._display.show(stage, done, total)

    def note(self, text: str) -> None:
        """One line for the user."""
        self.say(f"note: {one_line(in_option_names(text))}")

    def say(self, text: str) -> None:
        """Plain text on stderr, unless quiet."""
        if not self._quiet:
            self.close()
            tell("\n".join(map(one_line, text.splitlines())))

    def summary(self, done: RunReport) -> None:
        """Notes of a run over frames, and how fast it was."""
        for note in done.notes:
            self.note(note)
        fps = done.frames / max(done.elapsed_seconds, 1e-3)
        self.say(f"{counted(done.frames, 'frame')}, {fps:.1f} fps")
        if self.verbose:
            stages = ", ".join(f"{name} {ms}" for name, ms in done.stage_ms_per_frame.items())
            self.say(f"ms a frame: {stages}; peak memory {done.peak_memory_mb:.0f} MB")
            for name, value in (*done.weights.items(), *done.settings.items()):
                self.say(f"{name}: {value}")

    def close(self) -> None:
        """Ends the progress display."""
        self._display.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._claims.close()


@contextmanager
def reporting(
    *, quiet: bool = False, verbose: bool = False, **parts: Step | float
) -> Iterator[Reporter]:
    """Turns the library's errors into one line on stderr and the documented exit code.

    `parts`: the command's stages, as `Display` takes them.
    """
    with Reporter(quiet=quiet, verbose=verbose, **parts) as reporter:
        try:
            _check_working_folder()
            yield reporter
        except MetaPortraitError as error:
            raise _exit(reporter, str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise _exit(
                reporter, "interrupted; no half result is left", INTERRUPTED_EXIT_CODE
            ) from error
        except typer.Exit:
            raise
        except Exception as error:
            text, code = _unforeseen(error)
            raise _exit(reporter, text, code) from error


def _check_working_folder() -> None:
    """Raises `UsageError` where it was removed: some libraries end the process for that."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the working folder is gone: change into another one") from None


def _unforeseen(error: Exception) -> tuple[str, int]:
    """The words and the code for what the library has no error of its own for."""
    if is_out_of_memory(error):
        text = "out of memory; try a smaller `size` or `window`, or `device` cpu"
        return text, OutOfMemoryError.exit_code
    if is_missing_library(error):
        return cure(error), 1
    if isinstance(error, OSError):
        # Only our temporary files are written without a name to tell.
        where = f"{error.filename or tempfile.gettempdir()}: "
        text = f"{where}{error.strerror or error}; check space and permissions there"
        return text, MediaError.exit_code
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    return f"internal error: {type(error).__name__}: {error}; --verbose tells more; report it", 1


def _exit(reporter: Reporter, text: str, code: int) -> typer.Exit:
    reporter.close()
    if reporter.verbose:
        tell(traceback.format_exc())
    tell(f"error: {one_line(in_option_names(text))}")
    return typer.Exit(code)


def one_of(argument: Path | None, option: Path | None) -> Path:
    """The input, given either as an argument or as an option."""
    if argument is None and option is None:
        raise UsageError("give a clip")
    if argument is not None and option is not None:
        raise UsageError(f"{option}: one clip at a time; {argument} is given too")
    return argument or option or Path()


def skipped(target: Path, reporter: Reporter, *, as_json: bool) -> bool:
    """Whether a result that needn't be made again is there; says so, and prints it."""
    from metaportrait_cli.media.outputs import is_result  # noqa: PLC0415

    if not is_result(target):
        return False
    reporter.note(f"{target} exists; skipped")
    print_result(target, {"output": str(target), "skipped": True}, as_json=as_json)
    return True


def print_result(path: Path, report: dict[str, Any], *, as_json: bool) -> None:
    """The one thing on stdout: the result's path, or the report as one JSON object."""
    put(json.dumps(report, ensure_ascii=False) if as_json else path)


_results: ContextVar[TextIO | None] = ContextVar("results", default=None)
"""Stdout, where others must not write to it"""


def put(text: object) -> None:
    """A line on stdout. The work is done by then: it isn't undone where nobody reads it."""
    try:
        typer.echo(str(text), file=_results.get())
        (_results.get() or sys.stdout).flush()
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        _results.set(None)
        if not isinstance(error, BrokenPipeError):
            tell(f"note: stdout can't be written ({error.strerror}): {text}")


@contextmanager
def stdout_alone() -> Iterator[None]:
    """Within the block stdout is for `put`; what a library writes there by itself is on stderr."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(own), "w", encoding="utf-8") as results, redirect_stdout(sys.stderr):
            _results.set(results)
            yield
    finally:
        _results.set(None)
        os.dup2(own, 1)
        os.close(own)


def write_report(path: Path | None, report: dict[str, Any]) -> None:
    """Writes `--report`, atomically."""
    if path is None:
        return
    from metaportrait_cli.media.outputs import atomic_output  # noqa: PLC0415

    with atomic_output(path) as partial:
        partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
