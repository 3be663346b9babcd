"""Runs that are killed: what is left, and what the next run makes of it.

    python benchmarks/kills.py --count 300 --seconds 900       (Linux)

Each trial ends `metaportrait animate` or one of its ffmpegs by a signal, at a random instant or at
one of `EDGES`, or a batch of two jobs or one of its workers; and lets another run go on with
`--resume`. Counts what must not be: half results, tracebacks, processes that are there 10 seconds
later, files that outlive the next run, other pictures than a whole run's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

# What a command imports late, so that a trial begins at once.
import numpy as np
import pillow_heif  # noqa: F401
from PIL import Image

import metaportrait_cli.cli.app
import metaportrait_cli.render.warped  # noqa: F401
from metaportrait_cli.__main__ import run as command
from metaportrait_cli.media import outputs, segments, writer
from metaportrait_cli.pipeline import work
from metaportrait_cli.pipeline.animation import Animation
from metaportrait_cli.pipeline.driver import DriverMotion
from tests.clips import decoded, scene, write_clip

FRAMES = 20
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def begin(arguments: list[str], log: Path, *, prepare: Callable[[], None] = lambda: None) -> int:
    """A process that has all modules already, and runs the command; its id."""
    log.write_text("")  # it may end before it has begun
    child = os.fork()
    if child:
        return child
    for number in (*SIGNALS[1:], signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["metaportrait", *arguments]
    code = 1
    prepare()
    try:
        command()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def children(process: int, *, called: str = "") -> list[int]:
    """The ffmpegs of a process, not what is about to become one; or those `called` with a word."""
    found: list[int] = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            for child in listed.read_text().split():
                name = "cmdline" if called else "comm"
                told = Path(f"/proc/{child}/{name}").read_text()
                if called in told if called else told.startswith("ffmpeg"):
                    found.append(int(child))
        except OSError:
            continue
    return found


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pictures(path: Path) -> tuple[int, str]:
    frames = decoded(path)
    return len(frames), sha256(b"".join(frame.tobytes() for frame in frames)).hexdigest()


EDGES: list[tuple[Any, str]] = [
    (outputs, "check_output"),
    (outputs, "_sweep"),
    (os, "replace"),
    (np, "savez"),
    (Animation, "open"),
    (DriverMotion, "save"),
    (work.Work, "begin"),
    (work.Work, "discard"),
    (work.Seen, "add"),
    (segments.Segments, "closed"),
    (segments.Segments, "leave"),
    (segments.Segments, "join"),
    (writer.VideoWriter, "__enter__"),
    (writer.VideoWriter, "__exit__"),
    (writer, "check_whole"),
]
"""Before and after each of these something is there that wasn't, or is there no more."""


def ends_itself(edge: tuple[Any, str], *, after: bool, call: int, number: int) -> None:
    """In a process: a signal to itself at an edge, the `call`-th time it comes there."""
    place, name = edge
    calls = 0

    def at_edge(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(os.getpid(), number)
        result = original(*args, **kwargs)
        if calls == call and after:
            os.kill(os.getpid(), number)
        return result

    original = getattr(place, name)
    setattr(place, name, at_edge)


@dataclass
class Trials:
    """One command, broken off again and again."""

    folder: Path
    arguments: list[str]
    """But for the output"""
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    whole: tuple[int, str] = (0, "")
    of_batch: tuple[int, str] = (0, "")
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.log, self.output = self.folder / "log", self.folder / "out" / "o.mp4"
        self.output.parent.mkdir()

    def measure(self) -> None:
        """What an unbroken run gives, and how long it takes."""
        started = time.monotonic()
        os.waitpid(self._begin(), 0)
        self.seconds = time.monotonic() - started
        self.whole = pictures(self.output)
        self.output.unlink()
        # Workers know nothing of short pieces.
        arguments, results = self._batch()
        os.waitpid(begin(arguments, self.log), 0)
        self.of_batch = pictures(results[0])
        shutil.rmtree(results[0].parent)

    def one(self, trial: int) -> None:
        """A run that is broken off, looked at, and gone on with."""
        # Fifteen kinds of trials come in turn, and another signal to each of them every time.
        number = SIGNALS[(trial // 15 + trial) % 3]
        if trial % 5 == 4:
            edge, after = self.chance.choice(EDGES), self.chance.random() < 0.5
            call = self.chance.choice((1, 1, 2, 3))
            process = self._begin(lambda: ends_itself(edge, after=after, call=call, number=number))
            who, seen = "parent at an edge", []
        else:
            process, target, seen = self._aim("ffmpeg" if trial % 5 == 3 else "parent")
            if runs(target):
                os.kill(target, number)
            who = "parent" if target == process else "ffmpeg"
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self.counts[f"{number.name} of {who}: exit {code}"] += 1
        self._look(code, seen)
        if os.waitstatus_to_exitcode(os.waitpid(self._begin(), 0)[1]):
            self.wrong["next runs that failed"] += 1
            print(self.log.read_text())
            return
        self.wrong["other pictures"] += pictures(self.output) != self.whole
        left = os.listdir(self.output.parent)
        self.wrong["files that outlive the next run"] += left != [self.output.name]
        self.output.unlink()

    def batch(self, trial: int) -> None:
        """A batch whose worker is killed, which goes on; or all of it, and another goes on."""
        number = SIGNALS[trial // 15 % 3]
        arguments, results = self._batch()
        process = begin(arguments, self.log)
        workers: list[int] = []
        while len(workers) < 2 and runs(process):
            workers = children(process, called="spawn_main")
            time.sleep(0.01)
        time.sleep(self.chance.random() * 2.5 * self.seconds)
        target = process if trial % 30 == 14 else self.chance.choice(workers)
        seen = [*workers, *(each for worker in workers for each in children(worker))]
        if runs(target):
            os.kill(target, number)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        who = "batch" if target == process else "worker"
        self.counts[f"{number.name} of {who}: exit {code}"] += 1
        self._tell_tracebacks()
        self._wait_for(seen)
        if target != process:
            self.wrong["batches that a worker's end has ended"] += code != 0
        elif os.waitstatus_to_exitcode(os.waitpid(begin(arguments, self.log), 0)[1]):
            self.wrong["next runs that failed"] += 1
            print(self.log.read_text())
        for result in results:
            there = result.exists() and pictures(result) == self.of_batch
            self.wrong["other pictures"] += not there
        folder = results[0].parent
        left = set(os.listdir(folder)) - {"jobs.jsonl", *(result.name for result in results)}
        self.wrong["files that outlive the next run"] += bool(left)
        shutil.rmtree(folder)

    def _batch(self) -> tuple[list[str], list[Path]]:
        """A batch of two jobs in a folder of its own, and its results."""
        source, driver = self.arguments[1:3]
        jobs = [
            {"source": source, "driver": driver, "output": f"{n}.mp4", "full": False, "size": 64}
            for n in range(2)
        ]
        folder = self.folder / "batch"
        folder.mkdir()
        (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
        arguments = ["batch", str(folder / "jobs.jsonl"), "--weights", "none", "--workers", "2"]
        arguments += ["--skip-existing", "--resume", "--quiet"]
        return arguments, [folder / f"{n}.mp4" for n in range(2)]

    def _begin(self, prepare: Callable[[], None] = lambda: None) -> int:
        return begin([*self.arguments, "-o", str(self.output)], self.log, prepare=prepare)

    def _aim(self, who: str) -> tuple[int, int, list[int]]:
        """A run at a random instant: it, what is to be ended, and all its ffmpegs."""
        process = self._begin()
        time.sleep(self.chance.random() * self.seconds)
        seen = children(process)
        if who == "parent":
            return process, process, seen
        deadline = time.monotonic() + self.seconds
        while not seen and runs(process) and time.monotonic() < deadline:
            seen = children(process)
        return process, self.chance.choice(seen) if seen else process, seen

    def _look(self, code: int, seen: list[int]) -> None:
        self._tell_tracebacks()
        self._wait_for(seen)
        left = [e for e in os.listdir(self.output.parent) if not e.endswith(".work")]
        if self.output.exists():
            self.wrong["half results"] += pictures(self.output) != self.whole
            self.output.unlink()
            left.remove(self.output.name)
        else:
            self.wrong["done, and no result"] += code == 0
        self.wrong["files left by a run that could remove them"] += bool(left) and code >= 0

    def _tell_tracebacks(self) -> None:
        told = self.log.read_text(errors="replace")
        if "Traceback" in told or "internal error" in told:
            self.wrong["tracebacks"] += 1
            print(told)

    def _wait_for(self, seen: list[int]) -> None:
        ends = time.monotonic() + 10  # a worker that is just starting sees the end when it has
        while any(map(runs, seen)) and time.monotonic() < ends:
            time.sleep(0.05)
        left = ""
        for process in filter(runs, seen):
            with suppress(OSError):  # it has just ended; what is about to has no command line
                left += Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
        if left:
            self.wrong["orphans"] += 1
            print("still there:", left, flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--seconds", type=float, default=3600)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    work.PIECE_SECONDS = 0.4  # pyrefly: ignore[bad-assignment]
    work.QUICK_PIECES = 1  # pyrefly: ignore[bad-assignment]
    portrait = Path(__file__).parents[1] / "samples" / "portrait.png"
    pixels = np.asarray(Image.open(portrait).convert("RGB"))
    with tempfile.TemporaryDirectory() as name:
        frames = [scene(pixels, [(40 + 2 * i, 20, 200)]) for i in range(FRAMES)]
        sound = ("-f", "lavfi", "-t", "0.8", "-i", "sine=f=440:r=48000")
        clip = write_clip(Path(name) / "a.mp4", frames, inputs=sound)
        arguments = ["animate", str(portrait), str(clip), "--weights", "none", "--crop"]
        arguments += ["--size", "64", "--resume", "--quiet"]
        trials = Trials(Path(name), arguments, random.Random(asked.seed))
        started = time.monotonic()
        trials.measure()
        for trial in range(asked.count):
            if time.monotonic() - started > asked.seconds:
                break
            trials.batch(trial) if trial % 15 == 14 else trials.one(trial)
    for what, count in sorted(trials.counts.items()):
        print(f"{count:4} {what}")
    total = sum(trials.counts.values())
    print(f"{total} trials in {time.monotonic() - started:.0f} s")
    print("wrong:", dict(+trials.wrong) or "nothing")


if __name__ == "__main__":
    main()
