"""``metaportrait weights``: list, pull, convert and verify files of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Bundled, local and downloaded weights; converts the authors' released files.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


@app.command("list")
def list_weights(json_: JsonOption = False) -> None:
    """Show the known weights: size, licence, and where each file lies."""
    from metaportrait_cli.weights import read_manifest  # noqa: PLC0415
    from metaportrait_cli.weights.resolve import local_copy  # noqa: PLC0415

    rows = [(entry, local_copy(entry)) for entry in read_manifest().values()]
    if json_:
        listed = {
            entry.name: {**vars(entry), "path": str(path) if path else None} for entry, path in rows
        }
        typer.echo(json.dumps(listed, indent=2))
        return
    for entry, path in rows:
        typer.echo(f"{entry.name}\t{entry.size / 1e6:.1f} MB\t{entry.licence}\t{path or '(pull)'}")


@app.command()
def pull(
    weights: Annotated[
        str, typer.Argument(help="A name, hf://owner/repo/file@revision, or https://…#sha256=….")
    ],
) -> None:
    """Fetch weights if they are not here yet, check them, and print where they lie."""
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
    from metaportrait_cli.convert.released import convert_files  # noqa: PLC0415

    typer.echo(
        convert_files(
            inputs, output, overwrite=overwrite, on_notice=lambda text: typer.echo(text, err=True)
        )
    )


@app.command()
def verify(
    weights: Annotated[
        list[str] | None,
        typer.Argument(help="Names or files; without any, all known weights that are here."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check sums of known weights; structure of safetensors files."""
    from metaportrait_cli.weights.verify import verify_all  # noqa: PLC0415

    reports = verify_all(weights or None)
    if json_:
        typer.echo(json.dumps([vars(report) for report in reports], indent=2))
        return
    for report in reports:
        typer.echo(f"{report.path}: {report.verdict}", err=True)
        typer.echo(report.path)
