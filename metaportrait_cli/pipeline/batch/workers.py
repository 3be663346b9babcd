"""Jobs side by side on one machine: processes with an engine each, supervised."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType

from metaportrait_cli.devices import check_address_space
from metaportrait_cli.errors import FfmpegError
from metaportrait_cli.media.outputs import new_folders_used
from metaportrait_cli.media.process import end_with_parent
from metaportrait_cli.pipeline.batch.jobs import Job
from metaportrait_cli.pipeline.batch.run import BatchOptions, Result, Runner, failed

GRACE_SECONDS = 10.0
"""How long a worker may take to remove what it has begun, once it is told to end."""


def run_here(jobs: Sequence[Job], options: BatchOptions, *, workers: int = 1) -> Iterator[Result]:
    """Results as jobs end; with several workers in any order.

    A worker that is killed fails its job at most, after `retries`; another takes its place.
    Leaving the iteration ends all workers.
    """
    if workers == 1:
        runner = Runner(options)
        try:
            for job in jobs:
                yield runner.run(job)
        finally:
            runner.close()
        return
    check_address_space()
    # Workers that share a new folder leave it to each other.
    with new_folders_used(job.output.parent for job in jobs):
        yield from _Crew(options, min(workers, len(jobs))).run(jobs)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keeps a Ctrl-C from a process started in it, which inherits that, until it lets them in.

    Importing takes seconds, in which an interrupt would end a worker by a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # would let interrupts in again, when first started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """A process that runs one job at a time."""

    def __init__(self, options: BatchOptions) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, options), daemon=True)
        with _interrupts_held():
            self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.attempts = 0

    def give(self, job: Job, attempts: int) -> None:
        """Hands it a job."""
        self.job, self.attempts = job, attempts
        with suppress(OSError):  # it has just died, which shows when its answer is awaited
            self.connection.send((job, attempts))

    def end(self) -> None:
        """Tells it to end; `close` waits for that."""
        with suppress(OSError):
            self.connection.close()
        self.process.terminate()

    def close(self) -> None:
        """Makes sure that it has ended."""
        self.process.join(GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class _Crew:
    """So many workers, and what they are at."""

    def __init__(self, options: BatchOptions, count: int) -> None:
        self._options = options
        self._count = count

    def run(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Results as they come."""
        waiting = deque((job, 1) for job in jobs)
        crew: list[_Worker] = []
        with ExitStack() as stack:
            stack.callback(lambda: [worker.close() for worker in crew])
            stack.callback(lambda: [worker.end() for worker in crew])
            crew += [_Worker(self._options) for _ in range(self._count)]
            while waiting or any(worker.job for worker in crew):
                for worker in crew:
                    if worker.job is None and waiting:
                        worker.give(*waiting.popleft())
                busy = {worker.connection: worker for worker in crew if worker.job}
                for connection in wait(list(busy)):
                    worker = busy[connection]  # pyrefly: ignore[bad-index]
                    job, attempts = worker.job, worker.attempts
                    worker.job = None
                    try:
                        yield worker.connection.recv()
                    except (EOFError, OSError):
                        crew.remove(worker)
                        worker.end()
                        worker.close()
                        crew.append(_Worker(self._options))
                        if job is not None and attempts <= self._options.retries:
                            waiting.append((job, attempts + 1))
                        elif job is not None:
                            gone = FfmpegError(
                                "the process at work was killed: is the machine out of memory?"
                            )
                            yield failed(job, gone, attempts=attempts)


def _work(connection: Connection, options: BatchOptions) -> None:
    """What a worker does until there is no more to do."""
    end_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        return  # killed while this one started, for seconds on a busy machine: a job may wait
    # A Ctrl-C at the terminal reaches all; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _terminate)
    runner = Runner(options)
    with suppress(EOFError, OSError):
        while True:
            job, attempt = connection.recv()
            connection.send(runner.run(job, first=attempt))


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)
