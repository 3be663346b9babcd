"""`metaportrait evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import put, reporting, skipped
from metaportrait_cli.cli.display import Step
from metaportrait_cli.cli.options import BASIC, OUTPUT

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.evaluation.evaluate import Evaluation

EXAMPLES = """\
metaportrait evaluate clips/ --sheet sheet.png
metaportrait evaluate a.mp4 b.mp4 --mode cross --json
metaportrait evaluate me.mp4 --weights compact --weights me.student
metaportrait evaluate clip.mp4 --mode upscale --weights compact_sr"""

HIGHER_IS_BETTER = frozenset({"psnr", "ssim", "driver_identity_distance"})


def command(
    *,
    clips: Annotated[
        list[Path],
        typer.Argument(
            metavar="CLIP...",
            help="Clips, or folders of clips; to turn, photos too.",
            rich_help_panel=BASIC,
        ),
    ],
    mode: Annotated[
        Literal["self", "cross", "turn", "upscale", "upscale-rendered"],
        typer.Option(
            metavar="MODE",
            help="self: each clip re-enacts itself from its first frame. cross: each clip"
            " drives another clip's person. turn: each portrait, photo or clip, turned to its"
            " sides, up and down. upscale: super-resolution of each clip's own frames"
            " at 256². upscale-rendered: of frames that our weights rendered.",
            rich_help_panel=BASIC,
        ),
    ] = "self",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A method to judge: a name, weights, or a student, on clips of whom it knows;"
            " repeat for several [default: none and compact, or compact_sr].",
            autocompletion=shared.known_weights,
            rich_help_panel=BASIC,
        ),
    ] = None,
    frames: Annotated[
        int,
        typer.Option(
            metavar="N", help="Frames of each clip, evenly spread.", rich_help_panel=BASIC
        ),
    ] = 24,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a contact sheet here: a PNG file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    as_json: shared.AsJson = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Measure re-enactment (the source copied, the analytic warp, weights) or super-resolution."""
    with reporting(quiet=quiet, verbose=verbose, evaluate=Step(1, "clips")) as reporter:
        import json  # noqa: PLC0415

        from metaportrait_cli.pipeline.evaluation import evaluate as pipeline  # noqa: PLC0415

        if skip_existing and sheet is not None and skipped(sheet, reporter, as_json=as_json):
            return
        options = pipeline.EvaluateOptions(mode=mode, weights=tuple(weights or ()), frames=frames)
        done = pipeline.evaluate(
            clips, options, sheet=sheet, overwrite=overwrite, on_progress=reporter.progress
        )
        reporter.close()
        if not quiet:
            _show(done)
        if as_json:
            put(json.dumps(done.as_json(), ensure_ascii=False))
        elif sheet is not None:
            put(sheet)


def _show(done: Evaluation) -> None:
    """The summary as a table on stderr: metrics down, methods across."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    summary = done.summary()
    table = Table(title=f"{done.mode}, {len(done.clips)} clips at {done.size}×{done.size}, ± 95 %")
    table.add_column("metric", no_wrap=True)
    for method in summary:
        table.add_column(method, justify="right")
    for metric in dict.fromkeys(metric for values in summary.values() for metric in values):
        values = [summary[method].get(metric) for method in summary]
        cells = [f"{v.mean:.3g} ±{(v.high - v.low) / 2:.2g}" if v else "–" for v in values]
        table.add_row(f"{metric} {_better(metric)}", *cells)
    Console(stderr=True).print(table)


def _better(metric: str) -> str:
    """Where a metric should be."""
    if metric.startswith("gain_") or metric == "inside_sharpness":
        return "→1"
    return "↑" if metric in HIGHER_IS_BETTER or metric.startswith("correlation_") else "↓"
