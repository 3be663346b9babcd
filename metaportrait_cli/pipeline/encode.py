"""The end of every pipeline: pictures into a clip, encoded while the next ones are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.media.encoding import USUAL, Encoding
from metaportrait_cli.media.picture_folder import FolderWriter
from metaportrait_cli.media.segments import Segments
from metaportrait_cli.media.writer import Seal, VideoWriter
from metaportrait_cli.progress import Progress, Stopwatch
from metaportrait_cli.stages import prefetched

PICTURES_AHEAD = 16
"""As many as are made while one encoder ends and the next begins, so that nobody waits for them"""


def encode(
    pictures: Iterable[NDArray[np.uint8]],
    path: Path,
    *,
    rate: Fraction,
    total: int | None,
    stage: str,
    stopwatch: Stopwatch,
    on_progress: Progress,
    audio_from: Path | None = None,
    audio_offset: Fraction = Fraction(0),
    encoding: Encoding = USUAL,
    comment: str = "",
    seal: Seal | None = None,
) -> int:
    """Writes pictures (H, W, 3) of one size as a clip and returns how many there were.

    `total` is their number if it is known; `stage` names them in the progress. Without any picture
    nothing is written.
    """
    done = 0
    with ExitStack() as stack:
        writer: VideoWriter | FolderWriter | None = None
        for picture in prefetched(pictures, depth=PICTURES_AHEAD):
            if writer is None:
                height, width = picture.shape[:2]
                writer = stack.enter_context(
                    FolderWriter(path, comment=comment)
                    if encoding.in_folder
                    else VideoWriter(
                        path,
                        width=width,
                        height=height,
                        rate=rate,
                        audio_from=audio_from,
                        audio_offset=audio_offset,
                        duration=total / rate if total else None,
                        encoding=encoding,
                        comment=comment,
                        seal=seal,
                    )
                )
            with stopwatch("encode"):
                writer.write(picture)
            del picture  # it may be large, and the next one takes its time
            done += 1
            on_progress(stage, done, total)
    return done


def write_clip(
    pictures_from: Callable[[int], Iterable[NDArray[np.uint8]]],
    path: Path,
    segments: Segments | None,
    *,
    rate: Fraction,
    total: int,
    stage: str,
    stopwatch: Stopwatch,
    on_progress: Progress,
    audio_from: Path | None = None,
    audio_offset: Fraction = Fraction(0),
    encoding: Encoding = USUAL,
    comment: str = "",
    seal: Seal | None = None,
) -> int:
    """The same in pieces that outlive this run, after those that an earlier run has closed.

    `pictures_from` gives the pictures from a number on. Without `segments`, or where the kind of
    file isn't joined of pieces, it is one. Returns how many pictures the earlier run has made.
    """
    if segments is None or not segments.hold(encoding, path):
        encode(
            pictures_from(0),
            path,
            rate=rate,
            total=total,
            stage=stage,
            stopwatch=stopwatch,
            on_progress=on_progress,
            audio_from=audio_from,
            audio_offset=audio_offset,
            encoding=encoding,
            comment=comment,
            seal=seal,
        )
        return 0
    first = segments.closed()
    made = min(first * segments.length, total)
    with (
        closing(prefetched(pictures_from(made), depth=PICTURES_AHEAD)) as pictures,
        closing(segments.write(pictures, first=first, encoding=encoding)) as writing,
    ):
        for done, _ in enumerate(stopwatch.timed("encode", writing), made + 1):
            on_progress(stage, done, total)
    with stopwatch("encode"):
        segments.join(
            path,
            frames=total,
            audio_from=audio_from,
            audio_offset=audio_offset,
            comment=comment,
            seal=seal,
        )
    return made
