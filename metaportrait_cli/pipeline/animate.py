"""`animate`: one portrait, one driver, one clip (or picture)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from metaportrait_cli.errors import check_given
from metaportrait_cli.media.outputs import claimed
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.stills import is_still
from metaportrait_cli.media.writer import check_rate, check_video_name
from metaportrait_cli.motion.motion_file import SUFFIX
from metaportrait_cli.pipeline.animation import AnimateOptions, Animation
from metaportrait_cli.pipeline.driver import Driver, DriverMotion, as_driver
from metaportrait_cli.pipeline.encode import write_clip
from metaportrait_cli.pipeline.engine import Engine, lasting
from metaportrait_cli.pipeline.person.portrait_file import whose
from metaportrait_cli.pipeline.picture import SUFFIXES as PICTURES
from metaportrait_cli.pipeline.picture import animate_picture
from metaportrait_cli.pipeline.report import MARK, RunReport
from metaportrait_cli.pipeline.source import Picture, listed
from metaportrait_cli.pipeline.work import Begun, Work
from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.released.folder import is_prepared


def default_output(source: Path, driver: Path) -> Path:
    """`{source}--{driver}.mp4` in the working directory; `.png` where the driver is a picture."""
    stem = driver.name.removesuffix(SUFFIX) if driver.name.endswith(SUFFIX) else driver.stem
    picture = driver.is_file() and is_still(driver)
    return Path(f"{source.stem}--{stem}{'.png' if picture else '.mp4'}")


def animate(
    source: Picture | Sequence[Picture] | None,
    driver: Driver,
    output: str | os.PathLike[str],
    options: AnimateOptions | None = None,
    *,
    portrait: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    begun: Begun = "ask",
    on_progress: Progress = silent,
) -> RunReport:
    """Re-enacts the portrait with the driver's motion and writes the clip to `output`.

    Takes what `Animation.open` takes, and a folder that the authors' own tools prepared as driver,
    which brings its sources along; a picture as driver gives a picture. As many frames as the
    driver, at its rate, with its audio. Raises the errors of `metaportrait_cli.errors`; the output
    appears under its name only when it is complete. Of a longer clip what is done outlives a run
    that is broken off; `begun` tells what becomes of that, see `work.Begun`.
    """
    check_given(animate, output=output, options=options, portrait=portrait, engine=engine)
    started = time.perf_counter()
    output, driver = Path(output), as_driver(driver)
    with lasting(engine) as loaded:
        if isinstance(driver, Path) and is_prepared(driver):
            from metaportrait_cli.pipeline.prepared import animate_folder  # noqa: PLC0415  torch

            return animate_folder(
                driver, output, engine=loaded, overwrite=overwrite, on_progress=on_progress
            )
        file, person = (None, None) if portrait is None else whose(Path(portrait))
        files = [file, driver, *listed(source)]
        inputs = [Path(each) for each in files if isinstance(each, (str, os.PathLike))]
        options = options or AnimateOptions()
        if isinstance(driver, Path) and driver.is_file() and is_still(driver):
            return animate_picture(
                source,
                driver,
                output,
                options,
                portrait=portrait,
                engine=loaded,
                overwrite=overwrite,
                inputs=inputs,
                on_progress=on_progress,
            )
        if isinstance(driver, Path) and output.suffix.lower() in PICTURES:
            with open_frames(driver):
                pass  # a photo that isn't there or can't be read is told before its name
        in_folder = options.encoding.in_folder
        with claimed(output, overwrite=overwrite, is_input=inputs, pictures=in_folder):
            check_video_name(output, options.encoding)
            if output.suffix.lower() == ".gif" and isinstance(driver, Path):
                _check_rate(output, driver)
            if options.signing is not None:
                options.signing.check(output)
            work = Work.of(
                output,
                command="animate",
                settings={**loaded.settings(), **asdict(options), "person": person},
                inputs=inputs if len(inputs) == len(files) - (portrait is None) else None,
                begun=begun,
            )
            known = DriverMotion.saved(driver, work.folder, span=options.span)
            with Animation.open(
                loaded,
                source,
                driver,
                options,
                portrait=portrait,
                motion=known,
                work=work,
                on_progress=on_progress,
            ) as animation:
                _write(animation, output, work, known=known is not None)
    report = animation.report
    report.measure(animation.stopwatch, time.perf_counter() - started)
    return report


def _check_rate(output: Path, driver: Path) -> None:
    """Raises `UsageError` for a driver whose pictures come too fast; a template tells it later."""
    if not driver.name.endswith(SUFFIX):
        with open_frames(driver) as frames:
            check_rate(output, frames.rate)


def _write(animation: Animation, output: Path, work: Work, *, known: bool) -> None:
    """Makes the pictures and the clip, and tells in the report what came of it."""
    report = animation.report
    report.output = str(output)
    report.frames = animation.frames
    signing = animation.options.signing
    with work.kept(
        animation.frames,
        animation.rate,
        save=None if known else animation.motion.save,
        noted=animation.can_go_on,
        quick=animation.prepared.rendering.is_quick,
    ) as segments:
        report.resumed_at = write_clip(
            lambda start: (picture.image for picture in animation.pictures(start, segments)),
            output,
            segments,
            rate=animation.rate,
            total=animation.frames,
            stage="render",
            stopwatch=animation.stopwatch,
            on_progress=animation.on_progress,
            audio_from=animation.sound,
            audio_offset=-animation.motion.begins,
            encoding=animation.options.encoding,
            comment=MARK,
            seal=None if signing is None else signing.seal,
        )
