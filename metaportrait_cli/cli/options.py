"""Options that several commands share: one name, one help text, one panel of the help each.

Used as types; the default stands in the command: `overwrite: Overwrite = False`. What a command
says differently about the same option, it declares itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

BASIC, MOTION, OUTPUT, MACHINE = "Basic", "Motion", "Output", "Machine"
PANELS = (BASIC, MOTION, OUTPUT, MACHINE)
"""The parts of a command's help, in order."""


def known_weights(incomplete: str) -> list[str]:
    """Completes a name of the manifest, or a path."""
    from metaportrait_cli.weights import read_manifest  # noqa: PLC0415

    start = Path(incomplete or ".")
    folder = start if incomplete.endswith("/") or not incomplete else start.parent
    near = (str(path) + "/" * path.is_dir() for path in sorted(folder.glob("*")))
    return [name for name in ("none", *read_manifest(), *near) if name.startswith(incomplete)]


OutputFile = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="File to write.", rich_help_panel=BASIC),
]
ClipFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="CLIP",
        help="A clip or an image folder.",
        show_default=False,
        rich_help_panel=BASIC,
    ),
]
Clip = Annotated[
    Path | None,
    typer.Option("--input", "-i", metavar="CLIP", help="The same.", rich_help_panel=BASIC),
]
"""The clip as an option; see `console.one_of`."""
Face = Annotated[
    str,
    typer.Option(
        metavar="largest|N",
        help="Which face: the largest, or a number from the left, from 1.",
        rich_help_panel=BASIC,
    ),
]
Audio = Annotated[bool, typer.Option(help="Keep the clip's sound.", rich_help_panel=OUTPUT)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel=OUTPUT)
]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing",
        help="Do nothing if the result is there already.",
        rich_help_panel=OUTPUT,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write what was done, as JSON, to this file.",
        rich_help_panel=OUTPUT,
    ),
]
Sheet = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write a picture of before, after and truth here: a PNG file.",
        rich_help_panel=OUTPUT,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object on stdout instead of the path.",
        rich_help_panel=OUTPUT,
    ),
]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Device = Annotated[
    DeviceName, typer.Option(help="Where the networks run.", rich_help_panel=MACHINE)
]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
Precision = Annotated[
    PrecisionName,
    typer.Option(help="What the networks compute in.", rich_help_panel=MACHINE),
]
Window = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Frames that go through a network at a time; fewer take less memory.",
        rich_help_panel=MACHINE,
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", help="Start of all chance.", rich_help_panel=MACHINE)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.", rich_help_panel=MACHINE)]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Times of each stage, settings in effect, and where an error comes from.",
        rich_help_panel=MACHINE,
    ),
]
