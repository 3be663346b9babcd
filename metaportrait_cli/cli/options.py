"""Options that several commands share: one name, one help text, one panel of the help each.

Used as types; the default stands in the command: `overwrite: Overwrite = False`. What a command
says differently about the same option, it declares itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metaportrait_cli.errors import UsageError

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.provenance import Signing
    from metaportrait_cli.pipeline.work import Begun

BASIC, MOTION, OUTPUT, MACHINE = "Basic", "Motion", "Output", "Machine"
PANELS = (BASIC, MOTION, OUTPUT, MACHINE)
"""The parts of a command's help, in order."""


def begun(resume: bool, discard: bool) -> Begun:
    """What becomes of a run that was broken off."""
    if resume and discard:
        raise UsageError("give either `resume` or `discard`")
    return "resume" if resume else "discard" if discard else "ask"


def signing(certificate: Path | None, key: Path | None) -> Signing | None:
    """With what results are signed, if they are to be."""
    from metaportrait_cli.pipeline.provenance import Signing  # noqa: PLC0415

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("`sign` and `sign_key` go together")
    return Signing(certificate, key)


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
Start = Annotated[
    float,
    typer.Option(
        metavar="S",
        help="Second of the clip to begin at; frames count from there.",
        rich_help_panel=BASIC,
    ),
]
End = Annotated[
    float | None,
    typer.Option(metavar="S", help="Second of the clip to end at.", rich_help_panel=BASIC),
]
Face = Annotated[
    str,
    typer.Option(
        metavar="largest|N",
        help="Which face: the largest, or a number from the left, from 1.",
        rich_help_panel=BASIC,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="'none' (the analytic warp), a path, a name of `metaportrait weights list`,"
        " or hf://owner/repo/file@revision [default: the portrait's, or compact].",
        autocompletion=known_weights,
        rich_help_panel=BASIC,
    ),
]
Strength = Annotated[
    float,
    typer.Option(metavar="X", help="How much of the motion, 0 to 3.", rich_help_panel=MOTION),
]
Pitch = Annotated[
    float, typer.Option(metavar="DEGREES", help="Raise the face, too.", rich_help_panel=MOTION)
]
Roll = Annotated[
    float,
    typer.Option(metavar="DEGREES", help="Tilt the head clockwise, too.", rich_help_panel=MOTION),
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
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on where a run that was broken off stopped, if there was one.",
        rich_help_panel=OUTPUT,
    ),
]
Discard = Annotated[
    bool,
    typer.Option(
        "--discard", help="Drop what a run that was broken off has left.", rich_help_panel=OUTPUT
    ),
]
Codec = Annotated[
    Literal["auto", "h264", "h265", "vp9", "png"],
    typer.Option(
        help="How pictures are stored [auto: what everything plays, by the kind of file; png: each"
        " by itself, in a folder].",
        rich_help_panel=OUTPUT,
    ),
]
Crf = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="The encoder's quality; less is better and larger [default: the same to the eye].",
        rich_help_panel=OUTPUT,
    ),
]
MarkName = Literal["metadata", "visible"]
Mark = Annotated[
    MarkName,
    typer.Option(
        help="What says that the result is generated: its tags, or a label in a corner too.",
        rich_help_panel=OUTPUT,
    ),
]
Sign = Annotated[
    Path | None,
    typer.Option(
        metavar="PEM",
        help="Sign the result (C2PA) with this certificate and its chain, and --sign-key.",
        rich_help_panel=OUTPUT,
    ),
]
SignKey = Annotated[
    Path | None,
    typer.Option(metavar="PEM", help="The certificate's key.", rich_help_panel=OUTPUT),
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
    typer.Option(
        help="What the networks compute in; with `auto` a CPU multiplies bytes where that shows"
        " nothing.",
        rich_help_panel=MACHINE,
    ),
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
Portrait = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file made by `metaportrait personalize` or `distill`, instead of a source; one of"
        " several people is FILE:NAME.",
        rich_help_panel=BASIC,
    ),
]
