"""`metaportrait animate`."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Annotated, Literal

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import print_result, reporting, skipped, write_report
from metaportrait_cli.cli.options import BASIC, MOTION, OUTPUT
from metaportrait_cli.errors import UsageError

PREVIEW_SIZE = 256
EXAMPLES = """\
metaportrait animate face.jpg clip.mp4
metaportrait animate -s face.jpg -s smiling.jpg -d clip.mp4 -o out.mp4
metaportrait animate --portrait me.portrait -d clip.mp4 --compare
metaportrait animate face.jpg --yaw 20 --pitch -5
metaportrait animate face.jpg clip.mp4 --start 12.5 --preview 2"""


def command(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE... DRIVER",
            help="Portrait and clip, in place of --source and --driver.",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--source",
            "-s",
            metavar="FILE",
            help="Portrait: a photo or a clip; repeat it for further pictures of the same person.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    driver: Annotated[
        Path | None,
        typer.Option(
            "--driver",
            "-d",
            metavar="FILE",
            help="Motion: a clip, an image folder or a .motion.npz.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    portrait: shared.Portrait = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Result [default: {source}--{driver}.mp4 in the working folder].",
            rich_help_panel=BASIC,
        ),
    ] = None,
    weights: shared.Weights = None,
    face: Annotated[
        str,
        typer.Option(
            metavar="largest|N",
            help="The driver's face: the largest, or a number from the left, from 1.",
            rich_help_panel=BASIC,
        ),
    ] = "largest",
    source_face: Annotated[
        str,
        typer.Option(
            metavar="largest|N|all",
            help="The source's face: the largest, a number from the left, from 1, or all of the"
            " picture under the same motion.",
            rich_help_panel=BASIC,
        ),
    ] = "largest",
    start: shared.Start = 0.0,
    end: shared.End = None,
    preview: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="A first look: so many seconds, the face at 256 pixels or less, in"
            " {source}--{driver}-preview.mp4.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    motion: Annotated[
        Literal["relative", "absolute"],
        typer.Option(
            help="The driver's change of pose on the source's own, or its pose as is.",
            rich_help_panel=MOTION,
        ),
    ] = "relative",
    framing: Annotated[
        Literal["auto", "source", "driver"],
        typer.Option(
            help="Whose place and size the face has; auto: the driver's with --motion absolute,"
            " else the source's.",
            rich_help_panel=MOTION,
        ),
    ] = "auto",
    region: Annotated[
        str,
        typer.Option(
            metavar="PART[=X],...",
            help="Which parts of the motion: all, pose, expression, or of that lips (with the jaw),"
            " eyes, brows; each may have a strength of its own, as in pose,lips=0.5.",
            rich_help_panel=MOTION,
        ),
    ] = "all",
    reference_frame: Annotated[
        str,
        typer.Option(
            metavar="auto|N",
            help="Driver frame (from 0) that shows what the source shows; auto counts the"
            " expression from either person's rest.",
            rich_help_panel=MOTION,
        ),
    ] = "auto",
    strength: shared.Strength = 1.0,
    yaw: Annotated[
        float,
        typer.Option(
            metavar="DEGREES",
            help="Turn the head to the picture's right, too; alone with a photo, it needs no"
            " driver.",
            rich_help_panel=MOTION,
        ),
    ] = 0.0,
    pitch: shared.Pitch = 0.0,
    roll: shared.Roll = 0.0,
    smooth: Annotated[
        bool, typer.Option(help="Smooth the motion, without lag.", rich_help_panel=MOTION)
    ] = True,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--crop",
            help="The whole picture, or the face's crop alone.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Side of the face's crop in pixels [default: 512 with --crop, else the source's"
            " own]; one larger than the source's asks for super-resolution.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Source, driver and result side by side.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    audio: shared.Audio = True,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    resume: shared.Resume = False,
    discard: shared.Discard = False,
    codec: shared.Codec = "auto",
    crf: shared.Crf = None,
    mark: shared.Mark = "metadata",
    sign: shared.Sign = None,
    sign_key: shared.SignKey = None,
    report: shared.Report = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    window: shared.Window = 8,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Re-enact a portrait with a driver's motion, timing and sound."""
    with reporting(quiet=quiet, verbose=verbose, landmarks=1, render=4) as reporter:
        from metaportrait_cli.face.track import FaceChoice  # noqa: PLC0415
        from metaportrait_cli.media.encoding import Encoding  # noqa: PLC0415
        from metaportrait_cli.pipeline import animate as pipeline  # noqa: PLC0415
        from metaportrait_cli.pipeline.engine import Engine  # noqa: PLC0415
        from metaportrait_cli.pipeline.performance import DriveOptions  # noqa: PLC0415

        sources, driven_by = sorted_out(
            files or [],
            source or [],
            driver,
            portrait_given=portrait is not None,
            turned=bool(yaw or pitch or roll),
        )
        named = portrait or next(iter(sources), driven_by)
        target = output or pipeline.default_output(named, driven_by)
        if preview is not None:
            if end is not None:
                raise UsageError("`preview` says where it ends: leave `end` out")
            if not 0 < preview < inf:
                raise UsageError(f"`preview` {preview:g} is not a number of seconds above 0")
            end = start + preview
            target = output or target.with_stem(f"{target.stem}-preview")
        if codec == "png" and output is None:
            target = target.with_suffix("")
        if skip_existing and skipped(target, reporter, as_json=as_json):
            return
        signing = shared.signing(sign, sign_key)
        inputs = [*sources, portrait, driven_by, target]
        reporter.claim(report, overwrite=overwrite, apart_from=inputs)
        if reference_frame != "auto" and not reference_frame.isdecimal():
            raise UsageError(
                f"`reference_frame` {reference_frame!r} is neither 'auto' nor a frame number"
            )
        with Engine(weights, device=device, precision=precision) as engine:
            done = pipeline.animate(
                sources,
                driven_by,
                target,
                pipeline.AnimateOptions(
                    face=FaceChoice.parse(face),
                    source_face=FaceChoice.parse(source_face, field="source_face"),
                    drive=DriveOptions(
                        motion=motion,
                        framing=framing,
                        region=region,
                        strength=strength,
                        smooth=smooth,
                        yaw=yaw,
                        pitch=pitch,
                        roll=roll,
                        reference_frame=None if reference_frame == "auto" else int(reference_frame),
                    ),
                    full=full,
                    size=size,
                    at_most=None if preview is None else PREVIEW_SIZE,
                    start=start,
                    end=end,
                    compare=compare,
                    audio=audio,
                    window=window,
                    encoding=Encoding(codec, crf),
                    label=mark == "visible",
                    signing=signing,
                ),
                overwrite=overwrite,
                begun=shared.begun(resume, discard),
                portrait=portrait,
                engine=engine,
                on_progress=reporter.progress,
            )
        reporter.summary(done)
        write_report(report, done.as_json())
        print_result(target, done.as_json(), as_json=as_json)


def sorted_out(
    files: list[Path],
    sources: list[Path],
    driver: Path | None,
    *,
    portrait_given: bool,
    turned: bool = False,
) -> tuple[list[Path], Path]:
    """The sources and the driver, of which plain arguments may stand in for either.

    One source that is `turned` may be its own driver. Raises `UsageError` where one is missing or
    given twice.
    """
    from metaportrait_cli.media.stills import is_still  # noqa: PLC0415

    alone = [*files, *sources]
    if turned and driver is None and len(alone) == 1 and not portrait_given:
        driver, sources, files = alone[0], alone, []
    if driver is None:
        if not files:
            raise UsageError("give a driver: metaportrait animate face.jpg clip.mp4")
        *files, driver = files
        if len(files) > 1 and not driver.exists():
            raise UsageError(
                f"{driver} doesn't exist: the last one drives; a result is named by `output`"
            )
    if files and sources:
        raise UsageError(f"{files[0]}: give sources either with `source` or without")
    sources = sources or files
    if not sources and not portrait_given and is_still(driver):
        raise UsageError(f"{driver} is a photo: give a driver too, or turn it, as by --yaw 20")
    if bool(sources) == portrait_given:
        raise UsageError("give either `source` or `portrait`")
    return sources, driver
