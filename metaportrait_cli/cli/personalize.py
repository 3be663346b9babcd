"""`metaportrait personalize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import (
    Reporter,
    print_result,
    reporting,
    skipped,
    write_report,
)
from metaportrait_cli.cli.display import Step
from metaportrait_cli.cli.options import BASIC
from metaportrait_cli.errors import UsageError, counted

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.person.told import PersonalizeReport

EXAMPLES = """\
metaportrait personalize me.mp4
metaportrait personalize a.jpg b.jpg c.jpg -o me.portrait
metaportrait personalize --video me.mp4 --seconds 60 --sheet seen.png"""
SHOWN = {"lpips_like": "picture", "mouth_lpips_like": "mouth", "identity_distance": "identity"}


def command(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="VIDEO|PHOTO...",
            help="A video of the person, or photos.",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A video of the person; ten seconds do, minutes may help.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    photos: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A photo of the person, instead; repeat it.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Result [default: {video or first photo}.portrait in the working folder].",
            rich_help_panel=BASIC,
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Time for adapting the weights, once all is prepared; longer is better.",
            rich_help_panel=BASIC,
        ),
    ] = 30.0,
    weights: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Weights to adapt, or 'none' for the analytic warp.",
            autocompletion=shared.known_weights,
            rich_help_panel=BASIC,
        ),
    ] = "compact",
    face: shared.Face = "largest",
    sheet: shared.Sheet = None,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    report: shared.Report = None,
    as_json: shared.AsJson = False,
    device: shared.Device = "auto",
    seed: shared.Seed = 0,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Learn a person from their own video or photos; the result serves `animate --portrait`."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.face.track import FaceChoice  # noqa: PLC0415
        from metaportrait_cli.pipeline.engine import Engine  # noqa: PLC0415
        from metaportrait_cli.pipeline.person.personalize import personalize  # noqa: PLC0415
        from metaportrait_cli.pipeline.person.told import PersonalizeOptions  # noqa: PLC0415

        video, pictures = sorted_out(files or [], video, photos or [])
        target = output or Path(f"{(video or pictures[0]).stem}.portrait")
        if skip_existing and skipped(target, reporter, as_json=as_json):
            return
        inputs = [video, *pictures, target, sheet]
        reporter.claim(report, overwrite=overwrite, apart_from=inputs)
        reporter.expect(**_stages(seconds if video and weights != "none" else 0))
        with Engine(weights, device=device) as engine:
            done = personalize(
                target,
                PersonalizeOptions(
                    seconds=seconds,
                    seed=seed,
                    face=FaceChoice.parse(face),
                ),
                video=video,
                photos=pictures,
                sheet=sheet,
                engine=engine,
                overwrite=overwrite,
                on_progress=reporter.progress,
            )
        _show(done, reporter)
        write_report(report, done.as_json())
        print_result(target, done.as_json(), as_json=as_json)


def _stages(seconds: float) -> dict[str, Step | float]:
    """What is shown of the way; costs as measured with ten seconds of video."""
    stages: dict[str, Step | float] = {"look": Step(1, "pictures"), "views": Step(1.3, "tried")}
    if seconds:
        stages |= {
            "patches": Step(1, "pictures"),
            "adapt": Step(items="s", seconds=seconds),
            "weights": Step(1, "tried"),
        }
    return stages


def sorted_out(
    files: list[Path], video: Path | None, photos: list[Path]
) -> tuple[Path | None, list[Path]]:
    """The video or the photos, of which plain arguments may stand in for either."""
    from metaportrait_cli.media.stills import is_still  # noqa: PLC0415

    if len(files) == 1 and not photos and video is None and not is_still(files[0]):
        return files[0], []
    pictures = [*photos, *files]
    if (video is None) == (not pictures):
        raise UsageError("give either a `video` or `photos`")
    return video, pictures


def _show(done: PersonalizeReport, reporter: Reporter) -> None:
    for note in done.notes:
        reporter.note(note)
    reporter.say(
        f"{counted(done.views, 'view')} of {counted(done.looks, 'picture')},"
        f" {done.bytes / 1e6:.1f} MB;"
        f" judged on {counted(done.held_out, 'picture')} kept out of it"
    )
    for metric, name in SHOWN.items() if done.quality else ():
        before, after = (done.quality[when][metric] for when in ("before", "after"))
        reporter.say(f"{name}: {before:.4f} → {after:.4f} ({done.change(metric):+.0%})")
    if reporter.verbose:
        seconds = ", ".join(f"{name} {value}" for name, value in done.stage_seconds.items())
        reporter.say(f"seconds: {seconds}")
