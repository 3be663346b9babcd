"""Which frames of a clip are judged: short runs, evenly spaced over its length.

Runs rather than single frames, so that steadiness in time can be measured, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError
from metaportrait_cli.media.animation import IMAGE_SUFFIXES
from metaportrait_cli.media.reader import open_frames

RUN_FRAMES = 4
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi"})

T = TypeVar("T")


def find_clips(paths: Sequence[Path], *, or_photos: bool = False) -> list[Path]:
    """Files as they are, and of folders (not of folders within) the video files by name, with
    `or_photos` the pictures too; hidden ones are left out.

    Raises `MediaError` for what isn't there, and where there is nothing at all.
    """
    wanted = VIDEO_SUFFIXES | IMAGE_SUFFIXES if or_photos else VIDEO_SUFFIXES
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(
                each
                for each in path.iterdir()
                if each.suffix.lower() in wanted and not each.name.startswith(".")
            )
        elif path.is_file():
            found.append(path)
        else:
            raise MediaError(f"{path}: no such file or folder")
    if not found:
        kinds = "photo or clip" if or_photos else "clip"
        raise MediaError(
            f"no {kinds} found in {', '.join(map(str, paths))}; give files, or folders of them"
        )
    return found


def sample_runs(*, first: int, stop: int, frames: int) -> list[range]:
    """Runs of `RUN_FRAMES` frame numbers, about `frames` in all, in the middles of equal parts.

    Frames `first` ≤ i < `stop` may be taken. A short clip gives fewer runs, down to none.
    """
    length = stop - first
    count = min(max(1, frames // RUN_FRAMES), length // RUN_FRAMES)
    part = length / max(count, 1)
    starts = (first + int(part * k + (part - RUN_FRAMES) / 2) for k in range(count))
    return [range(start, start + RUN_FRAMES) for start in starts]


def count_frames(path: Path) -> int:
    """How many frames decode; what the container says is not reliable."""
    with open_frames(path) as frames:
        return sum(1 for _ in frames)


def read_runs(
    path: Path, runs: list[range], *, max_side: int | None
) -> Iterator[list[NDArray[np.uint8]]]:
    """Pictures of each run in one pass; a clip that ends early drops what's incomplete."""
    with open_frames(path, max_side=max_side) as frames:
        yield from pick_runs(((frame.index, frame.image) for frame in frames), runs)


def pick_runs(numbered: Iterable[tuple[int, T]], runs: list[range]) -> Iterator[list[T]]:
    """The items of each whole run, of (number, item) in order; `runs` don't overlap."""
    waiting = iter(runs)
    run = next(waiting, None)
    held: list[T] = []
    for number, item in numbered:
        if run is None:
            return
        if number in run:
            held.append(item)
        if number == run[-1]:
            yield held
            held, run = [], next(waiting, None)
