"""`metaportrait distill`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import Reporter, print_result, reporting, skipped, write_report
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.cli.training import train_options as training
from metaportrait_cli.errors import UsageError

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.person.distill import DistillReport

EXAMPLES = """\
metaportrait distill me.portrait -o me.student
metaportrait distill me.portrait --clips a.mp4 --clips b.mp4 --export me.onnx
metaportrait distill --source photo.jpg --minutes 20
metaportrait distill anna.portrait --portrait ben.portrait -o us.student"""


def command(
    *,
    portrait: Annotated[
        Path | None,
        typer.Argument(
            metavar="PORTRAIT",
            help="Made by: metaportrait personalize",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            "-s",
            metavar="FILE",
            help="A photo or a clip of the person, instead.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--portrait",
            metavar="FILE",
            help="Somebody else whom the same file shall hold; repeat it. Each is called as the"
            " file is: animate --portrait us.student:anna",
            rich_help_panel=BASIC,
        ),
    ] = None,
    clips: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CLIP",
            help="Anybody's clip that lends motion to learn from, besides what is made up; repeat"
            " it. The last of several is kept aside for judging.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Result [default: {portrait or source}.student in the working folder].",
            rich_help_panel=BASIC,
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the network as an ONNX file: landmarks in, a picture out.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    weights: shared.Weights = None,
    face: shared.Face = "largest",
    steps: training.Steps = 1200,
    lessons: Annotated[
        int,
        typer.Option(
            metavar="N", help="Pictures of made up motion to learn from.", rich_help_panel=BASIC
        ),
    ] = 1104,
    minutes: training.Minutes = None,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    report: shared.Report = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Teach a small network one person (or a few) by heart; the result serves
    `animate --portrait`."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.face.track import FaceChoice  # noqa: PLC0415
        from metaportrait_cli.pipeline.engine import Engine  # noqa: PLC0415
        from metaportrait_cli.pipeline.person import distill as pipeline  # noqa: PLC0415

        named = portrait or source
        if named is None:
            raise UsageError("give either `portrait` or `source`")
        target = output or Path(f"{named.stem}{pipeline.STUDENT_SUFFIX}")
        if skip_existing and skipped(target, reporter, as_json=as_json):
            return
        inputs = [portrait, source, *(others or []), *(clips or []), target, export]
        reporter.claim(report, overwrite=overwrite, apart_from=inputs)
        with Engine(weights, device=device) as engine:
            done = pipeline.distill(
                target,
                pipeline.DistillOptions(steps=steps, lessons=lessons, face=FaceChoice.parse(face)),
                portrait=portrait,
                source=source,
                others=others or [],
                clips=clips or [],
                onnx=export,
                engine=engine,
                run=training.run_options(minutes=minutes, device=device, save_minutes=2.0),
                overwrite=overwrite,
                on_progress=reporter.progress,
                on_record=lambda record: reporter.say(training.told(record)),
            )
        _show(done, reporter)
        write_report(report, done.as_json())
        print_result(target, done.as_json(), as_json=as_json)


def _show(done: DistillReport, reporter: Reporter) -> None:
    if done.step < done.steps:
        reporter.note(f"step {done.step} of {done.steps}; the same command goes on")
    if done.kept:
        reporter.say(
            f"{done.kept['psnr']:.1f} dB from the teacher, on motion that was not learnt from"
        )
    if len(done.people) > 1:
        reporter.say(
            f"knows {', '.join(done.people)}; of them, {done.people[0]} is"
            f" {done.output}:{done.people[0]}"
        )
    reporter.say(
        f"{done.lessons} lessons, {done.parameters / 1e6:.1f} million parameters,"
        f" {done.bytes / 1e6:.1f} MB"
    )
