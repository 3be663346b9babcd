"""Everything that can go wrong for a user, each with its exit code.

A message is one line: what happened, where, and what to do. The command line prints it and exits
with the code; a library caller catches the type. Settings are named in backticks by their field
(`source_face`), which the command line replaces by its option (--source-face).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def one_line(text: str) -> str:
    """The text as one line that does nothing to a terminal: names of files and what files say of
    themselves may hold anything."""
    return " ".join(
        "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split())).split()
    )


def counted(number: int, thing: str) -> str:
    """`1 view`, `2 views`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


class MetaPortraitError(Exception):
    """Base of all errors meant for the user."""

    exit_code: int = 1


class UsageError(MetaPortraitError):
    """Options that contradict each other, or an output that may not be written there."""

    exit_code = 2


class MediaError(MetaPortraitError):
    """A file that is missing, empty, damaged, or of a kind that can't be read."""

    exit_code = 3


class NoFaceError(MetaPortraitError):
    """No face, or not the face that was asked for."""

    exit_code = 4


class WeightsError(MetaPortraitError):
    """Weights that are missing, damaged, of another architecture, or not to be had offline."""

    exit_code = 5


class FfmpegError(MetaPortraitError):
    """ffmpeg is missing or failed while reading or writing."""

    exit_code = 6


class OutOfMemoryError(MetaPortraitError):
    """The device or the machine ran out of memory."""

    exit_code = 7


class BatchError(MetaPortraitError):
    """Some jobs of a batch failed; the others are done."""

    exit_code = 8


class TrainingError(MetaPortraitError):
    """A training run that can't go on: its numbers are no longer finite."""


INTERRUPTED_EXIT_CODE = 130

_EXHAUSTED = ("can't allocate memory", "Insufficient memory", "AllocateTensors", "bad_alloc")
"""How torch, OpenCV, MediaPipe and C++ say it."""
_NO_ROOM_FOR_LIBRARY = "failed to map segment from shared object"
"""How the system's loader does."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the machine's or the device's, whoever says so."""
    if isinstance(error, (OSError, ImportError)) and _NO_ROOM_FOR_LIBRARY in str(error):
        return "not permitted" not in str(error)  # as on a disk from which nothing may be run
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, without importing it
        or any(sign in str(error) for sign in _EXHAUSTED)
    )


_MEANT = {int: Integral, float: Real, bool: object}
"""NumPy's numbers are numbers, and anything is true or false."""


def check_kinds(settings: Any) -> None:
    """Raises `UsageError` for a field of a dataclass that isn't what its annotation says."""
    _check(type(settings), vars(settings))


def check_given(function: Callable[..., Any], **arguments: Any) -> None:
    """The same for arguments of a function."""
    _check(function, arguments)


def _check(of: Any, values: Mapping[str, Any]) -> None:
    hints = get_type_hints(of)
    for name, value in values.items():
        if name in hints and not _is(value, hints[name]):
            plain = value is not None and isinstance(value, (str, int, float))
            given = f"{type(value).__name__} {value!r}" if plain else _name(type(value))
            raise UsageError(f"`{name}` is {given}, not {_name(hints[name])}")


def _is(value: Any, hint: Any) -> bool:
    """Whether the value is what the annotation says, as far as a program can get it wrong."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is(value, part) for part in parts)
    if origin is Sequence:
        several = isinstance(value, Sequence) and not isinstance(value, str)
        return several and all(_is(each, parts[0]) for each in value)
    return origin is Literal or isinstance(value, _MEANT.get(hint, origin or hint))


def _name(hint: Any) -> str:
    """Of an annotation, for a message."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_name(part) for part in parts)
    if origin is Sequence:
        return f"a list of {_name(parts[0])}"
    return hint.__name__.removesuffix("Type")
