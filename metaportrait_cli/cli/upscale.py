"""`metaportrait upscale`."""

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
        typer.Option("--output", "-o", help="Result [default: {clip}--2x.mp4 here]."),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="How much of the enhanced faces shows, 0 to 1.")
    ] = 1.0,
    face_only: Annotated[
        bool,
        typer.Option(
            "--face-only", help="The largest face's crop alone: square, steady, 512 pixels or more."
        ),
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            help="Super-resolution: a name of `metaportrait weights list`, a path (a converted"
            " temporal_gfpgan.pth too), or hf://owner/repo/file@revision."
        ),
    ] = "compact_sr",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    window: Annotated[
        int, typer.Option(help="Frames enhanced at a time, at most; the result is the same.")
    ] = 16,
    audio: Annotated[bool, typer.Option(help="Keep the clip's audio.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what was done, as JSON, to this file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report on stdout instead of the path.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Any clip at twice its size: faces enhanced without flicker, the rest enlarged plainly."""
    with reporting(quiet=quiet) as reporter:
        from metaportrait_cli.pipeline import upscale as pipeline  # noqa: PLC0415
        from metaportrait_cli.pipeline.engine import Engine  # noqa: PLC0415

        target = output or pipeline.default_output(clip, face_only=face_only)
        with Engine(device=device, precision=precision) as engine:
            done = pipeline.upscale(
                clip,
                target,
                pipeline.UpscaleOptions(
                    weights=weights,
                    strength=strength,
                    face_only=face_only,
                    audio=audio,
                    window=window,
                ),
                engine=engine,
                overwrite=overwrite,
                on_progress=reporter.progress,
            )
        for note in done.notes:
            reporter.note(note)
        stages = ", ".join(f"{name} {ms}" for name, ms in done.stage_ms_per_frame.items())
        fps = done.frames / done.elapsed_seconds
        reporter.say(f"{done.frames} frames, {fps:.1f} fps; ms a frame: {stages}")
        write_report(report, done.as_json())
        print_result(target, done.as_json(), as_json=as_json)
