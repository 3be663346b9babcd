"""`metaportrait landmarks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import one_of, print_result, reporting, skipped, write_report
from metaportrait_cli.cli.options import BASIC

EXAMPLES = """\
metaportrait landmarks clip.mp4
metaportrait landmarks -i clip.mp4 -o clip.motion.npz --overlay seen.mp4"""


def command(
    *,
    file: shared.ClipFile = None,
    clip: shared.Clip = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Template [default: {clip}.motion.npz in the working folder].",
            rich_help_panel=BASIC,
        ),
    ] = None,
    face: shared.Face = "largest",
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the clip with the landmarks drawn over it.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    start: shared.Start = 0.0,
    end: shared.End = None,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    report: shared.Report = None,
    as_json: shared.AsJson = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Dense landmarks of a clip as a motion template, to use as a driver again and again."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.face.track import FaceChoice  # noqa: PLC0415
        from metaportrait_cli.pipeline.landmarks import (  # noqa: PLC0415
            default_template,
            extract_landmarks,
        )

        given = one_of(file, clip)
        target = output or default_template(given)
        if skip_existing and skipped(target, reporter, as_json=as_json):
            return
        reporter.claim(report, overwrite=overwrite, apart_from=[given, target, overlay])
        done = extract_landmarks(
            given,
            target,
            face=FaceChoice.parse(face),
            overlay=overlay,
            start=start,
            end=end,
            overwrite=overwrite,
            on_progress=reporter.progress,
        )
        reporter.summary(done)
        write_report(report, done.as_json())
        print_result(target, done.as_json(), as_json=as_json)
