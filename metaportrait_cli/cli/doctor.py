"""`metaportrait doctor`."""

from __future__ import annotations

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import put, reporting
from metaportrait_cli.cli.defaults import in_effect

EXAMPLES = """\
metaportrait doctor
metaportrait doctor --json"""


def command(*, as_json: shared.AsJson = False, verbose: shared.Verbose = False) -> None:
    """What this machine has, what is missing, and what to do about it."""
    with reporting(verbose=verbose):
        import json  # noqa: PLC0415

        from metaportrait_cli.pipeline.doctor import Finding, examine  # noqa: PLC0415

        findings = examine()
        findings += [Finding(f"default of {name}", True, value) for name, value in in_effect()]
        if as_json:
            put(json.dumps([{"name": f.name, "ok": f.ok, "detail": f.detail} for f in findings]))
        else:
            for finding in findings:
                mark = "ok     " if finding.ok else "MISSING"
                put(f"{mark} {finding.name}: {finding.detail}")
        code = next((f.exit_code for f in findings if not f.ok), 0)
        if code:
            raise typer.Exit(code)
