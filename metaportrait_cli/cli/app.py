"""The `metaportrait` command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from metaportrait_cli import __version__
from metaportrait_cli.cli import (
    animate,
    batch,
    distill,
    doctor,
    evaluate,
    landmarks,
    live,
    personalize,
    upscale,
    weights,
)
from metaportrait_cli.cli.help import add, group
from metaportrait_cli.cli.training import prepare, train

app = group(
    "metaportrait",
    "Bring a portrait to life with the motion of a clip, on your own files.",
    epilog=(
        "Exit codes: 0 done, 1 broken installation, 2 usage, 3 unreadable media, 4 no face,"
        " 5 weights, 6 ffmpeg, 7 out of memory, 8 part of a batch failed, 130 interrupted, 143"
        " terminated."
    ),
)
COMMANDS = (
    animate,
    personalize,
    distill,
    upscale,
    batch,
    live,
    landmarks,
    evaluate,
    prepare,
    doctor,
)
for command in COMMANDS:
    add(app, command.__name__.rpartition(".")[2], command.command, examples=command.EXAMPLES)
app.add_typer(train.app, name="train")
app.add_typer(weights.app, name="weights")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options before the command."""
