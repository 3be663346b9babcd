"""`metaportrait train teeth`."""

from __future__ import annotations

from pathlib import Path

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import print_result, reporting, skipped
from metaportrait_cli.cli.training import train_options as training

EXAMPLES = "metaportrait train teeth prepared -o teeth.safetensors"


def command(
    *,
    data: training.Data,
    output: shared.OutputFile = Path("teeth.safetensors"),
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    as_json: shared.AsJson = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Learn how rows of teeth look and where they stand, from data prepared at 512."""
    with reporting(quiet=quiet, verbose=verbose) as reporter:
        if skip_existing and skipped(output, reporter, as_json=as_json):
            return
        from metaportrait_cli.media.outputs import claimed  # noqa: PLC0415
        from metaportrait_cli.training.teeth.learn import train_teeth  # noqa: PLC0415

        with claimed(output, overwrite=overwrite):
            done = train_teeth(data, output, on_round=reporter.say)
        report = {
            "output": str(output),
            "upper": done.upper,
            "lower": done.lower,
            "heights": done.heights,
            "height_correlation": round(done.height_correlation, 3),
        }
        reporter.say(f"rows of {done.upper} and {done.lower} mouths")
        print_result(output, report, as_json=as_json)
