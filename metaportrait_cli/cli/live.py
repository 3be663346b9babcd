"""`metaportrait live`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import reporting
from metaportrait_cli.cli.options import BASIC, MACHINE, MOTION, OUTPUT
from metaportrait_cli.errors import UsageError

EXAMPLES = """\
metaportrait live face.jpg
metaportrait live --portrait me.portrait --camera 0 --weights none"""


def command(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE",
            help="Portrait: a photo or a clip.",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--source", "-s", metavar="FILE", help="The same.", rich_help_panel=BASIC),
    ] = None,
    portrait: shared.Portrait = None,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="CAMERA",
            help="A camera of this machine by its number, a clip, the address of a stream, or '-'"
            " for a clip on the standard input [default: the browser's camera].",
            rich_help_panel=BASIC,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="As for animate; 'none' is the fastest.",
            autocompletion=shared.known_weights,
            rich_help_panel=BASIC,
        ),
    ] = None,
    strength: shared.Strength = 1.0,
    yaw: Annotated[
        float,
        typer.Option(
            metavar="DEGREES",
            help="Turn the head to the picture's right, too.",
            rich_help_panel=MOTION,
        ),
    ] = 0.0,
    pitch: shared.Pitch = 0.0,
    roll: shared.Roll = 0.0,
    size: Annotated[
        int,
        typer.Option(metavar="N", help="Side of the pictures in pixels.", rich_help_panel=OUTPUT),
    ] = 512,
    mark: Annotated[
        bool,
        typer.Option(
            help="Say on every picture that it is generated.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where the page is served. Any but this machine's own lets in whoever has the"
            " page's address, over a connection that isn't encrypted; browsers keep their cameras"
            " to themselves then, so give --camera too.",
            rich_help_panel=MACHINE,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="0 takes any that is free.",
            rich_help_panel=MACHINE,
        ),
    ] = 0,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """A camera as driver: a page of this machine shows the portrait move with you.

    Prints the page's address, which holds a key; ends with Ctrl-C.
    """
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.pipeline.live.run import LiveOptions, run_live  # noqa: PLC0415
        from metaportrait_cli.pipeline.performance import DriveOptions  # noqa: PLC0415

        if file is not None and source is not None:
            raise UsageError(f"{source}: one source at a time; {file} is given too")
        options = LiveOptions(
            camera=camera,
            host=host,
            port=port,
            size=size,
            strength=strength,
            marked=mark,
            turn=DriveOptions(yaw=yaw, pitch=pitch, roll=roll).turn,
        )
        run_live(
            file or source,
            options,
            portrait=portrait,
            weights=weights,
            device=device,
            precision=precision,
            ready=typer.echo,
            on_notice=reporter.note,
        )
