"""`metaportrait prepare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli.console import print_result, reporting


def command(
    *,
    folder: Annotated[Path, typer.Argument(help="Clips and photos with an index.tsv.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the shards; finished ones are kept.")
    ],
    split: Annotated[str, typer.Option(help="Rows of the index to take.")] = "train",
    size: Annotated[
        int | None,
        typer.Option(help="Side of the pictures: 256 or 512 [default: 256; 512 with --runs]."),
    ] = None,
    frames_per_identity: Annotated[
        int, typer.Option(help="Most frames of a person; 36 of 1,300 people are 36 MB.")
    ] = 36,
    runs: Annotated[
        int | None,
        typer.Option(
            help="Instead of single frames, this many runs of consecutive frames of each sharp"
            " clip, with a copy at half size and low bit rate: for train sr."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a summary on stdout instead of the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Crop faces with their landmarks out of clips and photos, packed for training."""
    with reporting(quiet=quiet) as reporter:
        from metaportrait_cli.face.detector import MediaPipeDetector  # noqa: PLC0415
        from metaportrait_cli.training.data.prepare import PrepareOptions, looking_with, prepare  # noqa: PLC0415
        from metaportrait_cli.training.data.prepare_runs import PrepareRunsOptions, prepare_runs  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        with MediaPipeDetector(bundled_path("face_landmarker.task")) as detector:
            if runs is None:
                options = PrepareOptions(
                    split=split, size=size or 256, frames_per_identity=frames_per_identity
                )
                done = prepare(
                    folder,
                    output,
                    options,
                    find_faces=looking_with(detector, step=options.step),
                    on_progress=reporter.progress,
                )
            else:
                done = prepare_runs(
                    folder,
                    output,
                    PrepareRunsOptions(split=split, size=size or 512, runs=runs),
                    detector=detector,
                    on_progress=reporter.progress,
                )
        if done.skipped:
            reporter.note(f"{len(done.skipped)} files left out: no face, or unreadable")
        print_result(output, asdict(done), as_json=as_json)
