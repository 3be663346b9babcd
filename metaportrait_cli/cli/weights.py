"""`metaportrait weights`: list, pull, convert, join and verify files of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import put, reporting, skipped
from metaportrait_cli.cli.help import add, group
from metaportrait_cli.cli.options import BASIC

app = group("weights", "Bundled, local and downloaded weights; converts the released files.")


def list_weights(*, as_json: shared.AsJson = False, verbose: shared.Verbose = False) -> None:
    """The weights this version knows: size, licence, and where each file lies."""
    with reporting(verbose=verbose):
        from metaportrait_cli.weights import read_manifest  # noqa: PLC0415
        from metaportrait_cli.weights.sources import local_copy  # noqa: PLC0415

        rows = [(entry, local_copy(entry)) for entry in read_manifest().values()]
        if as_json:
            found = [{**vars(entry), "path": path and str(path)} for entry, path in rows]
            put(json.dumps(found))
        for entry, path in () if as_json else rows:
            where = path or "not here: pull it"
            put(f"{entry.name}\t{entry.size / 1e6:.1f} MB\t{entry.licence}\t{where}")


def pull(
    *,
    weights: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A name, or hf://owner/repo/file@revision.",
            autocompletion=shared.known_weights,
            rich_help_panel=BASIC,
        ),
    ],
    verbose: shared.Verbose = False,
) -> None:
    """Fetch weights unless they are here already, check them, and print where they lie."""
    with reporting(verbose=verbose):
        from metaportrait_cli.weights import resolve  # noqa: PLC0415

        put(resolve(weights))


def convert(
    *,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Released files: ckpt_base.pth.tar, temporal_gfpgan.pth.",
            rich_help_panel=BASIC,
        ),
    ],
    output: shared.OutputFile,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    as_json: shared.AsJson = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Convert the authors' released files to one safetensors file, without trusting them."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.convert.released import convert_files  # noqa: PLC0415

        if skip_existing and skipped(output, reporter, as_json=as_json):
            return
        done = convert_files(inputs, output, overwrite=overwrite, on_notice=reporter.say)
        put(json.dumps({"output": str(done)}) if as_json else done)


def join(
    *,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Files of one architecture.", rich_help_panel=BASIC),
    ],
    output: shared.OutputFile,
    half: Annotated[
        bool,
        typer.Option("--half", help="Store in half precision.", rich_help_panel=BASIC),
    ] = False,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    as_json: shared.AsJson = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Put networks that were trained apart into one file: warping, mouth and eyes, say."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.weights.join import join_files  # noqa: PLC0415

        if skip_existing and skipped(output, reporter, as_json=as_json):
            return
        done = join_files(inputs, output, half=half, overwrite=overwrite)
        put(json.dumps({"output": str(done)}) if as_json else done)


def verify(
    *,
    weights: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|FILE...",
            help="Weights or portraits; without any, all known weights that are here.",
            show_default=False,
            autocompletion=shared.known_weights,
            rich_help_panel=BASIC,
        ),
    ] = None,
    as_json: shared.AsJson = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Check the sums of known weights, and the structure of other files; print their paths."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        from metaportrait_cli.pipeline.verify import verify_all  # noqa: PLC0415

        reports = verify_all(weights or None)
        if as_json:
            put(json.dumps([vars(each) for each in reports]))
        for each in () if as_json else reports:
            reporter.say(f"{each.path}: {each.verdict}")
            put(each.path)


add(app, "list", list_weights, examples="metaportrait weights list --json")
add(
    app,
    "pull",
    pull,
    examples="metaportrait weights pull compact\n"
    "metaportrait weights pull hf://owner/repo/file.safetensors@main",
)
add(
    app,
    "convert",
    convert,
    examples="metaportrait weights convert ckpt_base.pth.tar -o released.safetensors",
)
add(
    app,
    "join",
    join,
    examples="metaportrait weights join warp.safetensors mouth.safetensors -o all.safetensors",
)
add(
    app,
    "verify",
    verify,
    examples="metaportrait weights verify\nmetaportrait weights verify me.portrait",
)
