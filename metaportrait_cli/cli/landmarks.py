"""`metaportrait landmarks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli.console import print_result, reporting, write_report


def command(
    *,
    clip: Annotated[Path, typer.Option("--input", "-i", help="A clip or an image folder.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Template [default: {clip}.motion.npz here]."),
    ] = None,
    face: Annotated[
        str, typer.Option(help="Which face: 'largest', or a number from the left, from 1.")
    ] = "largest",
    overlay: Annotated[
        Path | None, typer.Option(help="Also write the clip with the landmarks drawn over it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what was done, as JSON, to this file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report on stdout instead of the path.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Dense landmarks of a clip as a motion template, to use as --driver again and again."""
    with reporting(quiet=quiet) as reporter:
        from metaportrait_cli.face.track import FaceChoice  # noqa: PLC0415
        from metaportrait_cli.pipeline.landmarks import (  # noqa: PLC0415
            default_template,
            extract_landmarks,
        )

        target = output or default_template(clip)
        done = extract_landmarks(
            clip,
            target,
            face=FaceChoice.parse(face),
            overlay=overlay,
            overwrite=overwrite,
            on_progress=reporter.progress,
        )
        for note in done.notes:
            reporter.note(note)
        write_report(report, done.as_json())
        print_result(target, done.as_json(), as_json=as_json)
