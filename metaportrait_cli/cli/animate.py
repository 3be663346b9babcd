"""`metaportrait animate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli.console import print_result, reporting, write_report


class Motion(StrEnum):
    """Choices of --motion."""

    relative = "relative"
    absolute = "absolute"


class Framing(StrEnum):
    """Choices of --framing."""

    auto = "auto"
    source = "source"
    driver = "driver"


class Region(StrEnum):
    """Choices of --region."""

    all = "all"
    expression = "expression"
    pose = "pose"


def command(
    *,
    driver: Annotated[
        Path,
        typer.Option("--driver", "-d", help="Motion: a clip, an image folder or a .motion.npz."),
    ],
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--source",
            "-s",
            help="Portrait: a photo or a clip; repeat it for further pictures of the same person.",
        ),
    ] = None,
    portrait: Annotated[
        Path | None,
        typer.Option(help="A file made by `metaportrait personalize`, instead of --source."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Result [default: {source}--{driver}.mp4 here]."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="'none' (the analytic warp), a path, a name of `metaportrait weights list`,"
            " or hf://owner/repo/file@revision [default: the portrait's, or compact]."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps; for networks.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or fp16; for networks.")
    ] = "auto",
    face: Annotated[
        str, typer.Option(help="The driver's face: 'largest', or a number from the left, from 1.")
    ] = "largest",
    source_face: Annotated[
        str, typer.Option(help="The source's face: 'largest', or a number from the left, from 1.")
    ] = "largest",
    motion: Annotated[
        Motion,
        typer.Option(help="The driver's change of pose on the source's own, or its pose as is."),
    ] = Motion.relative,
    framing: Annotated[
        Framing,
        typer.Option(
            help="Whose place and size the face has; 'auto': the driver's with --motion absolute,"
            " else the source's."
        ),
    ] = Framing.auto,
    region: Annotated[Region, typer.Option(help="Which part of the motion.")] = Region.all,
    reference_frame: Annotated[
        str,
        typer.Option(
            help="Driver frame (from 0) that shows what the source shows; 'auto' counts the"
            " expression from either person's rest."
        ),
    ] = "auto",
    strength: Annotated[float, typer.Option(help="How much of the motion, 0 to 3.")] = 1.0,
    smooth: Annotated[bool, typer.Option(help="Smooth the motion, without lag.")] = True,
    full: Annotated[
        bool, typer.Option("--full/--crop", help="The whole picture, or the face's crop alone.")
    ] = True,
    size: Annotated[
        int | None,
        typer.Option(
            help="Side of the face's crop in pixels [default: 512 with --crop, else the source's"
            " own]; one larger than the source's asks for super-resolution."
        ),
    ] = None,
    compare: Annotated[bool, typer.Option(help="Source, driver and result side by side.")] = False,
    audio: Annotated[bool, typer.Option(help="Keep the driver's audio.")] = True,
    window: Annotated[int, typer.Option(help="Frames rendered at a time.")] = 16,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Do nothing if the result is there already.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write what was done, as JSON, to this file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report on stdout instead of the path.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Re-enact a portrait with a driver's motion, timing and sound."""
    with reporting(quiet=quiet) as reporter:
        from metaportrait_cli.errors import UsageError  # noqa: PLC0415
        from metaportrait_cli.face.track import FaceChoice  # noqa: PLC0415
        from metaportrait_cli.pipeline import animate as pipeline  # noqa: PLC0415
        from metaportrait_cli.pipeline.engine import Engine  # noqa: PLC0415
        from metaportrait_cli.pipeline.performance import DriveOptions  # noqa: PLC0415

        sources = source or []
        named = portrait or next(iter(sources), driver)
        target = output or pipeline.default_output(named, driver)
        if skip_existing and target.exists():
            reporter.note(f"{target} exists; skipped")
            print_result(target, {"output": str(target), "skipped": True}, as_json=as_json)
            return
        if reference_frame != "auto" and not reference_frame.isdecimal():
            raise UsageError(
                f"--reference-frame {reference_frame!r} is neither 'auto' nor a frame number"
            )
        with Engine(weights, device=device, precision=precision) as engine:
            done = pipeline.animate(
                sources,
                driver,
                target,
                pipeline.AnimateOptions(
                    face=FaceChoice.parse(face),
                    source_face=FaceChoice.parse(source_face),
                    drive=DriveOptions(
                        motion=motion.value,
                        framing=framing.value,
                        region=region.value,
                        strength=strength,
                        smooth=smooth,
                        reference_frame=None if reference_frame == "auto" else int(reference_frame),
                    ),
                    full=full,
                    size=size,
                    compare=compare,
                    audio=audio,
                    window=window,
                ),
                overwrite=overwrite,
                portrait=portrait,
                engine=engine,
                on_progress=reporter.progress,
            )
        for note in done.notes:
            reporter.note(note)
        stages = ", ".join(f"{name} {ms}" for name, ms in done.stage_ms_per_frame.items())
        fps = done.frames / done.elapsed_seconds
        reporter.say(f"{done.frames} frames, {fps:.1f} fps; ms a frame: {stages}")
        write_report(report, done.as_json())
        print_result(target, done.as_json(), as_json=as_json)
