"""The end of every pipeline: pictures into a clip, encoded while the next ones are made."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.media.writer import VideoWriter
from metaportrait_cli.progress import Progress, Stopwatch
from metaportrait_cli.stages import prefetched

PICTURES_AHEAD = 8


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
    comment: str = "",
) -> int:
    """Writes pictures (H, W, 3) of one size as a clip and returns how many there were.

    `total` is their number if it is known; `stage` names them in the progress. Without any picture
    nothing is written.
    """
    done = 0
    with ExitStack() as stack:
        writer: VideoWriter | None = None
        for picture in prefetched(pictures, depth=PICTURES_AHEAD):
            if writer is None:
                height, width = picture.shape[:2]
                writer = stack.enter_context(
                    VideoWriter(
                        path,
                        width=width,
                        height=height,
                        rate=rate,
                        audio_from=audio_from,
                        duration=total / rate if total else None,
                        comment=comment,
                    )
                )
            with stopwatch("encode"):
                writer.write(picture)
            done += 1
            on_progress(stage, done, total)
    return done
