"""Jobs as tasks of a Ray cluster, this machine's own or one that runs already.

Ray schedules them by the cores and GPUs that they ask for, and gives those of a machine that is
lost to another. Inputs and outputs must lie on a path that all machines share.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.outputs import is_result
from metaportrait_cli.pipeline.batch.jobs import Job
from metaportrait_cli.pipeline.batch.run import BatchOptions, Result, Runner, failed

LOST_WORKER_RETRIES = 3


@dataclass(frozen=True)
class ClusterOptions:
    """Where jobs run, and what each asks for."""

    address: str | None = None
    """`host:port` or `ray://…` of a cluster, `auto` for the one that this machine belongs to;
    `None` starts one here, for this batch alone"""
    cpus: float = 1
    """Of each job"""
    gpus: float = 0


def run_on_ray(
    jobs: Sequence[Job], options: BatchOptions, cluster: ClusterOptions
) -> Iterator[Result]:
    """Results as jobs end, in any order. Raises `UsageError` without Ray or its cluster."""
    try:
        import ray  # noqa: PLC0415  optional
        from ray.exceptions import RayError  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            "`engine` ray needs Ray: pip install 'metaportrait-cli[cluster]'"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"`address` {cluster.address}: {error}") from error
    # A task that Ray gives to another machine goes on where the lost one was.
    begun = "resume" if options.begun == "ask" else options.begun
    options = replace(options, begun=begun)
    task = ray.remote(
        num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=LOST_WORKER_RETRIES
    )(_run)
    try:
        waiting = {task.remote(job, _unless_there(options, job)): job for job in jobs}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            job = waiting.pop(done)
            try:
                yield ray.get(done)
            except RayError as error:  # lost too often
                yield failed(job, error, attempts=LOST_WORKER_RETRIES + 1)
    finally:
        if ours:
            ray.shutdown()


def _unless_there(options: BatchOptions, job: Job) -> BatchOptions:
    """What is not there yet needn't be made twice by a task whose machine was lost at its end."""
    return options if is_result(job.output) else replace(options, skip_existing=True)


_runners: dict[BatchOptions, Runner] = {}
"""Of this process: Ray gives a worker many tasks, and weights are loaded for the first."""


def _run(job: Job, options: BatchOptions) -> Result:
    """A task."""
    if options not in _runners:
        _runners[options] = Runner(options)
    missing = [path for path in job.inputs if not path.exists()]
    if missing:
        error = FileNotFoundError(
            2, f"not seen by {platform.node()}; inputs must lie on a path that all machines share"
        )
        error.filename = str(missing[0])
        return failed(job, error)
    return _runners[options].run(job)
