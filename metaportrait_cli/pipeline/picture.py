"""One picture as driver: its expression and the pose of its head on the portrait."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.given import Clip
from metaportrait_cli.media.outputs import claimed
from metaportrait_cli.media.stills import read_still, write_still
from metaportrait_cli.pipeline.animation import AnimateOptions, Animation
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.report import MARK, RunReport
from metaportrait_cli.pipeline.source import Picture
from metaportrait_cli.progress import Progress

SUFFIXES = (".png", ".jpg", ".jpeg")


def animate_picture(
    source: Picture | Sequence[Picture] | None,
    driver: Path,
    output: Path,
    options: AnimateOptions,
    *,
    portrait: str | os.PathLike[str] | None,
    engine: Engine,
    overwrite: bool,
    inputs: Sequence[Path],
    on_progress: Progress,
) -> RunReport:
    """Shows the portrait with the driver's expression and pose in `output`, a PNG or JPEG.

    Place and size stay the portrait's, unless the driver's are asked for. Raises as `animate`.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{output}: a picture as driver gives a picture: choose a name in {', '.join(SUFFIXES)}"
        )
    if not options.span.whole:
        raise UsageError(f"{driver} is a picture: `start` and `end` are for clips")
    if options.signing is not None:
        options.signing.check(output)
    started = time.perf_counter()
    drive = options.drive
    framing = "source" if drive.framing == "auto" else drive.framing
    # Among the frames of one picture there is none that shows less: its pose is taken as it is.
    options = replace(options, drive=replace(drive, motion="absolute", framing=framing))
    clip = Clip([read_still(driver).image], name=str(driver))
    with (
        claimed(output, overwrite=overwrite, is_input=inputs),
        Animation.open(
            engine, source, clip, options, portrait=portrait, on_progress=on_progress
        ) as animation,
    ):
        (picture,) = animation.pictures()
        write_still(output, picture.image, comment=MARK)
    report = animation.report
    report.output, report.frames = str(output), 1
    report.measure(animation.stopwatch, time.perf_counter() - started)
    return report
