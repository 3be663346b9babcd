"""`metaportrait doctor`."""

from __future__ import annotations

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import put, reporting
from metaportrait_cli.cli.defaults import FILE, default_map, in_effect
from metaportrait_cli.errors import UsageError

EXAMPLES = """\
metaportrait doctor
metaportrait doctor --json"""


def command(
    ctx: typer.Context, *, as_json: shared.AsJson = False, verbose: shared.Verbose = False
) -> None:
    """What this machine has, what is missing, and what to do about it."""
    with reporting(verbose=verbose):
        import json  # noqa: PLC0415

        from metaportrait_cli.pipeline.doctor import Finding, examine  # noqa: PLC0415

        findings = examine()
        try:
            default_map(ctx.find_root().command)
            found = [Finding(f"default of {name}", True, value) for name, value in in_effect()]
        except UsageError as error:
            found = [Finding(FILE.name, False, f"{error}; mend it", error.exit_code)]
        findings += found
        if as_json:
            put(json.dumps([{"name": f.name, "ok": f.ok, "detail": f.detail} for f in findings]))
        else:
            for finding in findings:
                mark = "ok     " if finding.ok else "NOT OK "
                put(f"{mark} {finding.name}: {finding.detail}")
        code = next((f.exit_code for f in findings if not f.ok), 0)
        if code:
            raise typer.Exit(code)
