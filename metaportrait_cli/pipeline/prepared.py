"""`animate` on a folder that the authors' own tools prepared, with the released weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.devices import choose
from metaportrait_cli.errors import MediaError
from metaportrait_cli.media.outputs import claimed
from metaportrait_cli.pipeline.encode import encode
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.report import MARK, RunReport
from metaportrait_cli.progress import Progress, Stopwatch, silent
from metaportrait_cli.render.named import DEFAULT
from metaportrait_cli.render.released.networks import (
    ReleasedRenderer,
    TemporalEnhancer,
    has_super_resolution,
)
from metaportrait_cli.weights import resolve

RATE = Fraction(24000, 1001)  # what the authors' tool writes


def animate_folder(
    folder: Path,
    output: Path,
    *,
    engine: Engine,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> RunReport:
    """Renders every driving frame of the folder, in its order, as one clip at 23.976 fps."""
    started = time.perf_counter()
    stopwatch = Stopwatch()
    weights = resolve(engine.weights or DEFAULT)
    report = RunReport(
        command="animate",
        inputs={"folder": str(folder)},
        output=str(output),
        settings=engine.settings(),
        rate=str(RATE),
    )
    with claimed(output, overwrite=overwrite, is_input=[weights]):
        report.frames = encode(
            stopwatch.timed("render", _frames(folder, weights, engine)),
            output,
            rate=RATE,
            total=None,
            stage="render",
            stopwatch=stopwatch,
            on_progress=on_progress,
            comment=MARK,
        )
    if not report.frames:
        raise MediaError(f"{folder}: no driving frames (<k>/imgs, <k>/ldmks) in it")
    report.duration_seconds = round(report.frames / float(RATE), 3)
    report.measure(stopwatch, time.perf_counter() - started)
    return report


def _frames(folder: Path, weights: Path, engine: Engine) -> Iterator[NDArray[np.uint8]]:
    device, dtype = choose(engine.device, engine.precision)
    base = ReleasedRenderer.load(weights, device=device, dtype=dtype)
    rendered = (picture for _, picture in base.render_folder(folder))
    if has_super_resolution(weights):
        yield from TemporalEnhancer.load(weights, device=device, dtype=dtype).enhance(rendered)
    else:
        yield from rendered
