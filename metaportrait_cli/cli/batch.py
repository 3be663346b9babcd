"""`metaportrait batch`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metaportrait_cli.cli import options as shared
from metaportrait_cli.cli.console import put, reporting, stdout_alone
from metaportrait_cli.cli.display import Step
from metaportrait_cli.cli.options import BASIC, MACHINE, OUTPUT
from metaportrait_cli.errors import BatchError, UsageError

if TYPE_CHECKING:
    from metaportrait_cli.pipeline.batch.jobs import Job

EXAMPLES = """\
metaportrait batch jobs.jsonl
metaportrait batch jobs.jsonl --workers 4 --skip-existing --resume
metaportrait batch --sources 'faces/*.jpg' --drivers 'clips/*.mp4'
metaportrait batch jobs.jsonl --shard 3/8
metaportrait batch jobs.jsonl --engine ray --address auto --gpus-per-job 1"""


def command(
    *,
    manifest: Annotated[
        Path | None,
        typer.Argument(
            metavar="JOBS",
            help="Jobs, one JSON object a line: source (or portrait), driver, output, and options"
            " of animate by their names; paths from the file's own folder.",
            show_default=False,
            rich_help_panel=BASIC,
        ),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Instead, all these portraits with all drivers; quote the pattern.",
            rich_help_panel=BASIC,
        ),
    ] = None,
    drivers: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="The clips that drive them.", rich_help_panel=BASIC),
    ] = None,
    pattern: Annotated[
        str,
        typer.Option(metavar="NAME", help="Their results' names.", rich_help_panel=BASIC),
    ] = "{source}--{driver}.mp4",
    weights: shared.Weights = None,
    overwrite: shared.Overwrite = False,
    skip_existing: shared.SkipExisting = False,
    resume: shared.Resume = False,
    discard: shared.Discard = False,
    mark: shared.Mark = "metadata",
    sign: shared.Sign = None,
    sign_key: shared.SignKey = None,
    retries: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=10,
            help="How often a job is tried again after what may go well the next time.",
            rich_help_panel=OUTPUT,
        ),
    ] = 1,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N", help="Every N-th job from the I-th on.", rich_help_panel=MACHINE
        ),
    ] = "1/1",
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=256,
            help="Jobs side by side, each with its own copy of the networks.",
            rich_help_panel=MACHINE,
        ),
    ] = 1,
    engine: Annotated[
        Literal["here", "ray"],
        typer.Option(help="This machine, or a Ray cluster.", rich_help_panel=MACHINE),
    ] = "here",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The cluster; 'auto' is this machine's [default: one for this batch alone].",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    cpus_per_job: Annotated[
        float, typer.Option(metavar="N", help="On the cluster.", rich_help_panel=MACHINE)
    ] = 1,
    gpus_per_job: Annotated[
        float, typer.Option(metavar="N", help="On the cluster.", rich_help_panel=MACHINE)
    ] = 0,
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Many re-enactments: a line of JSON on stdout for each as it ends; bad ones stop no other."""
    with (
        ExitStack() as alone,
        reporting(quiet=quiet, verbose=verbose, jobs=Step(1, "done")) as reporter,
    ):
        from metaportrait_cli.devices import check_names  # noqa: PLC0415
        from metaportrait_cli.pipeline.batch import jobs as listing  # noqa: PLC0415
        from metaportrait_cli.pipeline.batch.run import BatchOptions  # noqa: PLC0415

        check_names(device, precision)
        signing = shared.signing(sign, sign_key)
        if signing is not None:
            signing.algorithm()
        jobs = listing.shard(_jobs(manifest, sources, drivers, pattern), shard)
        options = BatchOptions(
            weights=weights,
            device=device,
            precision=precision,
            overwrite=overwrite,
            skip_existing=skip_existing,
            begun=shared.begun(resume, discard),
            retries=retries,
            label=mark == "visible",
            signing=signing,
        )
        if engine == "ray":
            from metaportrait_cli.pipeline.batch.cluster import ClusterOptions, run_on_ray  # noqa: PLC0415

            results = run_on_ray(jobs, options, ClusterOptions(address, cpus_per_job, gpus_per_job))
            alone.enter_context(stdout_alone())  # Ray tells there of nodes that are lost
        else:
            from metaportrait_cli.pipeline.batch.workers import run_here  # noqa: PLC0415

            results = run_here(jobs, options, workers=workers)
        failed = 0
        reporter.progress("jobs", 0, len(jobs))
        for done, result in enumerate(results, 1):
            failed += result.status == "failed"
            if result.status == "failed":
                reporter.note(f"job {result.job} failed: {result.error}")
            put(json.dumps(result.as_json(), ensure_ascii=False))
            reporter.progress("jobs", done, len(jobs))
        if failed:
            others = "; the others are done" if failed < len(jobs) else ""
            raise BatchError(f"{failed} of {len(jobs)} jobs failed{others}")


def _jobs(
    manifest: Path | None, sources: str | None, drivers: str | None, pattern: str
) -> list[Job]:
    from glob import glob  # noqa: PLC0415

    from metaportrait_cli.pipeline.batch.jobs import all_pairs, read_jobs  # noqa: PLC0415

    if manifest is not None and sources is None and drivers is None:
        return read_jobs(manifest)
    if manifest is not None or sources is None or drivers is None:
        raise UsageError("give a list of jobs, or both `sources` and `drivers`")
    portraits, clips = ([Path(name) for name in sorted(glob(each))] for each in (sources, drivers))
    return all_pairs(portraits, clips, pattern)
