"""`metaportrait personalize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaportrait_cli.cli.console import Reporter, print_result, reporting, write_report

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.person.personalize import PersonalizeReport

SHOWN = {"lpips_like": "picture", "mouth_lpips_like": "mouth", "identity_distance": "identity"}


def command(
    *,
    video: Annotated[
        Path | None, typer.Option(help="A video of the person; ten seconds do, minutes may help.")
    ] = None,
    photos: Annotated[
        list[Path] | None, typer.Option(help="A photo of the person, instead; repeat it.")
    ] = None,
    more_photos: Annotated[
        list[Path] | None, typer.Argument(help="Further photos.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Result [default: {video or first photo}.portrait]."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(help="Time for adapting --weights, once all is prepared; longer is better."),
    ] = 30.0,
    weights: Annotated[
        str, typer.Option(help="Weights to adapt, or 'none' for the analytic warp.")
    ] = "compact",
    face: Annotated[
        str, typer.Option(help="Whose: 'largest', or a number from the left, from 1.")
    ] = "largest",
    seed: Annotated[int, typer.Option(help="Of the adaptation.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps; for networks.")] = "auto",
    sheet: Annotated[
        Path | None,
        typer.Option(help="Also write a picture of before, after and truth, a PNG file, here."),
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
    """Learn a person from their own video or photos; the result serves `animate --portrait`."""
    with reporting(quiet=quiet) as reporter:
        from metaportrait_cli.errors import UsageError  # noqa: PLC0415
        from metaportrait_cli.face.track import FaceChoice  # noqa: PLC0415
        from metaportrait_cli.pipeline.engine import Engine  # noqa: PLC0415
        from metaportrait_cli.pipeline.person import personalize as pipeline  # noqa: PLC0415

        pictures = [*(photos or []), *(more_photos or [])]
        if more_photos and not photos:
            raise UsageError("give photos with --photos, or a video with --video")
        first = video or next(iter(pictures), None)
        if first is None or (video is not None and pictures):
            raise UsageError("give either --video or --photos")
        target = output or Path(f"{first.stem}.portrait")
        with Engine(weights, device=device) as engine:
            done = pipeline.personalize(
                target,
                pipeline.PersonalizeOptions(
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


def _show(done: PersonalizeReport, reporter: Reporter) -> None:
    for note in done.notes:
        reporter.note(note)
    reporter.say(
        f"{done.views} views of {done.looks} pictures, {done.bytes / 1e6:.1f} MB;"
        f" judged on {done.held_out} pictures that are not in it"
    )
    for metric, name in SHOWN.items() if done.quality else ():
        before, after = (done.quality[when][metric] for when in ("before", "after"))
        reporter.say(f"{name}: {before:.4f} → {after:.4f} ({done.change(metric):+.0%})")
