"""`metaportrait weights`: list, pull, convert, join and verify files of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli.console import reporting

app = typer.Typer(
    no_args_is_help=True,
    help="Bundled, local and downloaded weights; converts the authors' released files.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead.")]


@app.command("list")
def list_weights(as_json: JsonOption = False) -> None:
    """The weights this version knows: size, licence, and where each file lies."""
    with reporting():
        from metaportrait_cli.weights import read_manifest  # noqa: PLC0415
        from metaportrait_cli.weights.sources import local_copy  # noqa: PLC0415

        rows = [(entry, local_copy(entry)) for entry in read_manifest().values()]
        if as_json:
            found = [{**vars(entry), "path": path and str(path)} for entry, path in rows]
            typer.echo(json.dumps(found))
        for entry, path in () if as_json else rows:
            where = path or "not here: pull it"
            typer.echo(f"{entry.name}\t{entry.size / 1e6:.1f} MB\t{entry.licence}\t{where}")


@app.command()
def pull(
    weights: Annotated[
        str, typer.Argument(help="A name, hf://owner/repo/file@revision, or https://…#sha256=….")
    ],
) -> None:
    """Fetch weights unless they are here already, check them, and print where they lie."""
    with reporting():
        from metaportrait_cli.weights import resolve  # noqa: PLC0415

        typer.echo(resolve(weights))


@app.command()
def convert(
    inputs: Annotated[
        list[Path], typer.Argument(help="Released files: ckpt_base.pth.tar, temporal_gfpgan.pth.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file to write.")],
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
) -> None:
    """Convert the authors' released files to one safetensors file, without trusting them."""
    with reporting() as report:
        from metaportrait_cli.convert.released import convert_files  # noqa: PLC0415

        typer.echo(convert_files(inputs, output, overwrite=overwrite, on_notice=report.say))


@app.command()
def join(
    inputs: Annotated[list[Path], typer.Argument(help="Files of one architecture.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Store in half precision.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
) -> None:
    """Put networks that were trained apart into one file: warping, mouth and eyes, say."""
    with reporting():
        from metaportrait_cli.weights.join import join_files  # noqa: PLC0415

        typer.echo(join_files(inputs, output, half=half, overwrite=overwrite))


@app.command()
def verify(
    weights: Annotated[
        list[str] | None,
        typer.Argument(help="Names or files; without any, all known weights that are here."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the sums of known weights, and the structure of other files; print their paths."""
    with reporting() as report:
        from metaportrait_cli.pipeline.verify import verify_all  # noqa: PLC0415

        reports = verify_all(weights or None)
        if as_json:
            typer.echo(json.dumps([vars(each) for each in reports]))
        for each in () if as_json else reports:
            report.say(f"{each.path}: {each.verdict}")
            typer.echo(each.path)
