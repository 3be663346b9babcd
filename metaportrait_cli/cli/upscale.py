"""`metaportrait upscale`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import one_of, print_result, reporting, skipped, write_report
from metaportrait_cli.cli.options import BASIC, OUTPUT

EXAMPLES = """\
metaportrait upscale clip.mp4
metaportrait upscale -i clip.mp4 -o large.mp4 --strength 0.5
metaportrait upscale -i clip.mp4 --face-only"""


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
            help="Result [default: {clip}--2x.mp4 in the working folder].",
            rich_help_panel=BASIC,
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="How much of the enhanced faces shows, 0 to 1.",
            rich_help_panel=BASIC,
        ),
    ] = 1.0,
    face_only: Annotated[
        bool,
        typer.Option(
            "--face-only",
            help="The largest face's crop alone: square, steady, 512 pixels or more.",
            rich_help_panel=BASIC,
        ),
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Super-resolution: a name of `metaportrait weights list`, a path (a converted"
            " temporal_gfpgan.pth too), or hf://owner/repo/file@revision.",
            autocompletion=shared.known_weights,
            rich_help_panel=BASIC,
        ),
    ] = "compact_sr",
    audio: Annotated[
        bool, typer.Option(help="Keep the clip's sound.", rich_help_panel=OUTPUT)
    ] = True,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    resume: shared.Resume = False,
    discard: shared.Discard = False,
    codec: shared.Codec = "auto",
    crf: shared.Crf = None,
    report: shared.Report = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    window: shared.Window = 16,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Any clip at twice its size: faces enhanced without flicker, the rest enlarged plainly."""
    with reporting(quiet=quiet, verbose=verbose, faces=1, upscale=9) as reporter:
        from metaportrait_cli.media.encoding import Encoding  # noqa: PLC0415
        from metaportrait_cli.pipeline import upscale as pipeline  # noqa: PLC0415
        from metaportrait_cli.pipeline.engine import Engine  # noqa: PLC0415

        given = one_of(file, clip)
        target = output or pipeline.default_output(given, face_only=face_only)
        if codec == "png" and output is None:
            target = target.with_suffix("")
        if skip_existing and skipped(target, reporter, as_json=as_json):
            return
        reporter.claim(report, overwrite=overwrite, apart_from=[given, target])
        with Engine(device=device, precision=precision) as engine:
            done = pipeline.upscale(
                given,
                target,
                pipeline.UpscaleOptions(
                    weights=weights,
                    strength=strength,
                    face_only=face_only,
                    audio=audio,
                    window=window,
                    encoding=Encoding(codec, crf),
                ),
                engine=engine,
                overwrite=overwrite,
                begun=shared.begun(resume, discard),
                on_progress=reporter.progress,
            )
        reporter.summary(done)
        write_report(report, done.as_json())
        print_result(target, done.as_json(), as_json=as_json)
