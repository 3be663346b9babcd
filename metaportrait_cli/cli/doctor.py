"""`metaportrait doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from metaportrait_cli.cli.console import reporting


def command(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings on stdout as JSON.")
    ] = False,
) -> None:
    """What this machine has, what is missing, and what to do about it."""
    with reporting():
        import json  # noqa: PLC0415

        from metaportrait_cli.pipeline.doctor import examine  # noqa: PLC0415

        findings = examine()
        if as_json:
            typer.echo(
                json.dumps([{"name": f.name, "ok": f.ok, "detail": f.detail} for f in findings])
            )
        else:
            for finding in findings:
                mark = "ok     " if finding.ok else "MISSING"
                typer.echo(f"{mark} {finding.name}: {finding.detail}", err=True)
        code = next((f.exit_code for f in findings if not f.ok), 0)
        if code:
            raise typer.Exit(code)
