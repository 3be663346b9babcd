"""What a run keeps beside its output while it goes on, so that another may go on from there.

`.out.mp4.work/` holds what was asked for (`job.json`), the finished landmarks, and closed pieces of
the clip. It goes when the output appears.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import metaportrait_cli
from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.outputs import atomic_output, hidden_name
from metaportrait_cli.media.segments import Segments
from metaportrait_cli.weights.download import sha256_of

Begun = Literal["ask", "resume", "discard"]
"""What to do about a run that was begun and not finished: `ask` refuses, and tells the choice."""

PIECE_SECONDS = 5
"""Of a clip, in each piece: what is made twice at most. Shorter clips are made anew."""
_JOB = "job.json"


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

    @contextmanager
    def kept(
        self, frames: int, rate: Fraction, *, save: Callable[[Path], None]
    ) -> Iterator[Segments | None]:
        """Where a clip of so many frames is made in pieces; None for one that is made at once.

        `save` puts what is known before the first frame into the folder. It stays if the block
        raises, or doesn't end at all, and goes when it ends well.
        """
        length = max(1, round(PIECE_SECONDS * rate))
        if not self.lasts or frames <= length:
            self.discard()
            yield None
            return
        if not self.exists:
            self.folder.mkdir(exist_ok=True)
            save(self.folder)
            with atomic_output(self.folder / _JOB) as partial:
                partial.write_text(json.dumps(self.job, indent=1))
        yield Segments(self.folder, length=length, rate=rate)
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
