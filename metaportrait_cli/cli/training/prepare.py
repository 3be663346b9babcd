"""`metaportrait prepare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import print_result, reporting
from metaportrait_cli.cli.options import BASIC

EXAMPLES = """\
metaportrait prepare clips/ -o prepared
metaportrait prepare clips/ -o runs --runs 3"""


def command(
    *,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Clips and photos with an index.tsv: a header and a line a file, tab-separated."
            " Columns: file (path in the folder), split (train, test, …), kind (clip or photo),"
            " identity (the person's name), origin (real, restored or generated); others are"
            " ignored.",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the shards; finished ones are kept.",
            rich_help_panel=BASIC,
        ),
    ],
    split: Annotated[
        str,
        typer.Option(metavar="NAME", help="Lines of the index to take.", rich_help_panel=BASIC),
    ] = "train",
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Side of the pictures: 256 or 512 [default: 256; 512 with --runs].",
            rich_help_panel=BASIC,
        ),
    ] = None,
    frames_per_identity: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Most frames of a person; 36 of 1,300 people are 36 MB.",
            rich_help_panel=BASIC,
        ),
    ] = 36,
    runs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Instead of single frames, this many runs of consecutive frames of each sharp"
            " clip, with a copy at half size and low bit rate: for train sr.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    as_json: shared.AsJson = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Crop faces with their landmarks out of clips and photos, packed for training."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.face.detector import MediaPipeDetector  # noqa: PLC0415
        from metaportrait_cli.training.data.prepare import PrepareOptions, looking_with, prepare  # noqa: PLC0415
        from metaportrait_cli.training.data.prepare_runs import PrepareRunsOptions, prepare_runs  # noqa: PLC0415
        from metaportrait_cli.weights import bundled_path  # noqa: PLC0415

        singly = PrepareOptions(
            split=split, size=size or 256, frames_per_identity=frames_per_identity
        )
        with MediaPipeDetector(bundled_path("face_landmarker.task")) as detector:
            if runs is None:
                done = prepare(
                    folder,
                    output,
                    singly,
                    find_faces=looking_with(detector, step=singly.step),
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
