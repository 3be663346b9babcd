"""What a run keeps beside its output while it goes on, so that another may go on from there.

`.out.mp4.work/` holds what was asked for (`job.json`); closed pieces of what was seen in the
driver, until all of it is known; and closed pieces of the clip. It goes when the output appears.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import starmap
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

import metaportrait_cli
from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.face import Face
from metaportrait_cli.media.outputs import atomic_output, hidden_name
from metaportrait_cli.media.segments import Segments
from metaportrait_cli.pipeline.sightings import Glance
from metaportrait_cli.render.protocol import Enhancer, Memory
from metaportrait_cli.weights.download import sha256_of

Begun = Literal["ask", "resume", "discard"]
"""What to do about a run that was begun and not finished: `ask` refuses, and tells the choice."""

PIECE_SECONDS = 4
"""Of a clip, in each piece: with what waits to be encoded, at most 5 are made twice, 9 if quick."""
QUICK_PIECES = 2
"""Pieces are so many times as long where pictures are made about as fast as they are shown: each
has an encoder of its own, whose start costs as much as six pictures"""
_SHORT = Fraction(5, 4)
"""Clips of at most so many pieces are made anew."""
_JOB = "job.json"
_SEEN = "seen-*.npz"


@dataclass(frozen=True)
class Work:
    """A run's own folder; there is none before `kept`."""

    output: Path
    job: Mapping[str, Any]
    lasts: bool = True
    """Whether anything is kept"""

    @classmethod
    def of(
        cls,
        output: Path,
        *,
        command: str,
        settings: Mapping[str, Any],
        inputs: Sequence[Path] | None,
        begun: Begun,
    ) -> Work:
        """The work for an output, checked against what lies there of an earlier run.

        What has no files for `inputs` can't be begun again: nothing is kept of it.
        Raises `UsageError` if that is of another job, or if it is not said what shall become of it.
        """
        if begun not in get_args(Begun):
            raise UsageError(f"`begun` {begun!r}: choose one of {', '.join(get_args(Begun))}")
        job = {
            "version": metaportrait_cli.__version__,
            "command": command,
            **{f"input {number}": _content(path) for number, path in enumerate(inputs or (), 1)},
            **settings,
        }
        work = cls(output, json.loads(json.dumps(job, default=str)), lasts=inputs is not None)
        if begun == "discard" or not work.exists:
            work.discard()
        elif begun == "ask":
            raise UsageError(
                f"{output}: a run for it was begun and not finished; `resume` goes on with it,"
                " `discard` starts anew"
            )
        else:
            work._check_job()
        return work

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.output.with_name(hidden_name(self.output.name, ".work"))

    @property
    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return (self.folder / _JOB).is_file()

    def begin(self) -> None:
        """Makes the folder, if it isn't there."""
        if not self.exists:
            self.folder.mkdir(exist_ok=True)
            with atomic_output(self.folder / _JOB) as partial:
                partial.write_text(json.dumps(self.job, indent=1))

    def diary(self, rate: Fraction) -> Seen | None:
        """Where what is seen in the driver's frames is kept; None if nothing is."""
        return Seen(self, _length(rate)) if self.lasts else None

    @contextmanager
    def kept(
        self,
        frames: int,
        rate: Fraction,
        *,
        save: Callable[[Path], None] | None,
        noted: bool = False,
        quick: bool = False,
    ) -> Iterator[Segments | None]:
        """Where a clip of so many frames is made in pieces; None for one that is made at once.

        `quick` tells that making it takes about as long as it lasts. `save` puts what is known
        before the first frame into the folder, if it isn't there. It stays if the block raises, or
        doesn't end at all, and goes when it ends well. For `noted` see `Segments`.
        """
        length = _length(rate) * (QUICK_PIECES if quick else 1)
        if not self.lasts or frames <= _SHORT * length:
            self.discard()
            yield None
            return
        self.begin()
        if save is not None:
            save(self.folder)
        for path in self.folder.glob(_SEEN):
            path.unlink()
        yield Segments(self.folder, length=length, rate=rate, noted=noted)
        self.discard()

    def discard(self) -> None:
        """Removes it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_job(self) -> None:
        try:
            begun = json.loads((self.folder / _JOB).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.output}: what was begun can't be read; `discard` starts anew"
            ) from error
        for name, wanted in self.job.items():
            found = begun.get(name) if isinstance(begun, dict) else None
            if found != wanted:
                raise UsageError(
                    f"{self.output}: can't go on with what was begun, for its {name} was"
                    f" {_shown(found)} and is {_shown(wanted)}; `discard` starts anew"
                )


class Seen:
    """What was seen in a clip's frames, in closed pieces; see `sightings.Diary`.

    There is no folder before the first one, and none of a short clip.
    """

    def __init__(self, work: Work, length: int) -> None:
        """`length` is the number of frames in a piece."""
        self._work = work
        self._length = length
        self._number = 0
        self._glances: list[Glance] = []

    def earlier(self) -> Iterator[Glance]:
        """In all frames of the pieces that an earlier run has closed."""
        while (glances := _read_glances(self._place)) is not None:
            self._number += 1
            yield from glances

    def add(self, glance: Glance) -> None:
        """In the frame after those."""
        self._glances.append(glance)
        frames = self._number * self._length + len(self._glances)
        if frames > _SHORT * self._length and len(self._glances) > self._length:
            self._work.begin()
            with atomic_output(self._place) as partial:
                np.savez(partial, **_as_arrays(self._glances[: self._length]))
            self._number += 1
            self._glances = self._glances[self._length :]

    @property
    def _place(self) -> Path:
        return self._work.folder / _SEEN.replace("*", f"{self._number:06}")


def _as_arrays(glances: Sequence[Glance]) -> dict[str, Any]:
    faces = [face for glance in glances for face in glance.faces]
    return {
        "found": np.array([len(glance.faces) for glance in glances]),
        "everywhere": np.array([glance.everywhere for glance in glances]),
        "turns": np.array([glance.turns for glance in glances]),
        "unchecked": np.array([glance.unchecked for glance in glances]),
        "points": np.array([face.points for face in faces], np.float32),
        "blendshapes": np.array([face.blendshapes for face in faces], np.float32),
        "confidence": np.array([face.confidence for face in faces]),
    }


def _read_glances(path: Path) -> list[Glance] | None:
    """Those of a piece; `None` where it isn't there, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            known = dict(arrays)
        columns = (known["points"], known["blendshapes"], known["confidence"].tolist())
        faces = list(starmap(Face.of, zip(*columns, strict=True)))
        ends = np.cumsum(known["found"]).tolist()
        told = (known[name].tolist() for name in ("everywhere", "turns", "unchecked"))
        return [
            Glance(faces[start:end], *rest)
            for start, end, *rest in zip([0, *ends[:-1]], ends, *told, strict=True)
        ]
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return None


@dataclass(frozen=True)
class Notes:
    """With which frame rendering goes on, and what the pictures before it left behind."""

    entry: int = 0
    memory: Memory = field(default_factory=dict)
    segments: Segments | None = None
    """For whose pieces notes are left"""
    reach: int = 0
    """Frames before a piece that have to be rendered for it"""

    @classmethod
    def of(cls, segments: Segments | None, start: int, enhancer: Enhancer | None) -> Notes:
        """For pictures from number `start` on, where a piece begins."""
        reach = 0 if enhancer is None else enhancer.reach
        if segments is None or reach is None:
            return cls()
        note = segments.note(start // segments.length) if start else None
        if note is None:
            return cls(segments=segments, reach=reach)
        entry = int(note.pop("entry"))
        memory = {name: value.astype(np.float32) for name, value in note.items()}
        return cls(entry, memory, segments, reach)

    def leave(self, memory: Memory, first: int, *, until: int | None = None) -> None:
        """With the session's memory before the frame `first`: for pieces that need frames from it
        on, or with `until` from any other before that one."""
        if self.segments is None:
            return
        low, high = (first, first + 1) if until is None else (first + 1, until)
        # Pieces whose frame is the clip's first are all at the start.
        number = max(1, -(-(low + self.reach) // self.segments.length)) if low else 1
        while (needed := max(number * self.segments.length - self.reach, 0)) < high:
            if needed >= low:
                self.segments.leave(number, {"entry": first, **memory})
            number += 1


def _length(rate: Fraction) -> int:
    """Frames of a piece."""
    return max(1, round(PIECE_SECONDS * rate))


def _content(path: Path) -> str:
    """What identifies an input: of a folder its files' names, sizes and times."""
    if path.is_dir():
        listed = sorted(entry for entry in path.rglob("*") if entry.is_file())
        parts = [(entry.name, (s := entry.stat()).st_size, s.st_mtime_ns) for entry in listed]
        return f"{os.path.abspath(path)}: {parts}"
    return f"{path.name} of sha256 {sha256_of(path)[:16]}" if path.is_file() else str(path)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 80 else f"{text[:80]}…"
