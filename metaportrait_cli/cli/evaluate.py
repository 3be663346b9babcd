"""`metaportrait evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metaportrait_cli.cli.console import reporting

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.evaluation.evaluate import Evaluation, Mode

HIGHER_IS_BETTER = frozenset({"psnr", "ssim", "driver_identity_distance"})


def command(
    clips: Annotated[list[Path], typer.Argument(help="Clips, or folders of clips.")],
    *,
    mode: Annotated[
        str,
        typer.Option(
            help="'self': each clip re-enacts itself from its first frame. 'cross': each clip"
            " drives another clip's person. 'upscale': super-resolution of each clip's own frames"
            " at 256². 'upscale-rendered': of frames that our weights rendered."
        ),
    ] = "self",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="A method to judge; repeat for several [default: none and compact, or compact_sr]."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of each clip, evenly spread.")] = 24,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet, a PNG file, here.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the sheet.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all values on stdout as one JSON object.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Measure re-enactment (the source copied, the analytic warp, weights) or super-resolution."""
    with reporting(quiet=quiet) as reporter:
        import json  # noqa: PLC0415

        from metaportrait_cli.pipeline.evaluation import evaluate as pipeline  # noqa: PLC0415

        options = pipeline.EvaluateOptions(
            mode=cast("Mode", mode), weights=tuple(weights or ()), frames=frames
        )
        done = pipeline.evaluate(
            clips, options, sheet=sheet, overwrite=overwrite, on_progress=reporter.progress
        )
        reporter.close()
        if not quiet:
            _show(done)
        if as_json:
            typer.echo(json.dumps(done.as_json(), ensure_ascii=False))
        elif sheet is not None:
            typer.echo(str(sheet))


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
