"""Runs that are killed at random instants: what is left, and what the next run makes of it.

    python benchmarks/kills.py --count 300 --seconds 900       (Linux)

Each trial starts `metaportrait animate`, ends it or one of its ffmpegs by a signal, and lets
another run go on with `--resume`. Counts what must not be: half results, tracebacks, processes that
are there 3 seconds later, files that outlive the next run, other pictures than a whole run's.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from metaportrait_cli.__main__ import main as command
from metaportrait_cli.pipeline import work
from tests.clips import decoded, scene, write_clip

FRAMES = 30
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


def children(process: int) -> list[int]:
    """The ffmpegs of a process; not what is about to become one."""
    found: list[int] = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            for child in listed.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().startswith("ffmpeg"):
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


@dataclass
class Trials:
    """One command, broken off again and again."""

    arguments: list[str]
    output: Path
    log: Path
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    whole: tuple[int, str] = (0, "")
    seconds: float = 0.0

    def measure(self) -> None:
        """What an unbroken run gives, and how long it takes."""
        started = time.monotonic()
        os.waitpid(begin(self.arguments, self.log), 0)
        self.seconds = time.monotonic() - started
        self.whole = pictures(self.output)
        self.output.unlink()

    def one(self, trial: int) -> None:
        """A run that is broken off, looked at, and gone on with."""
        number = SIGNALS[trial % 3]
        process, target, seen = self._aim("ffmpeg" if trial % 4 == 3 else "parent")
        if runs(target):
            os.kill(target, number)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        who = "parent" if target == process else "ffmpeg"
        self.counts[f"{number.name} of {who}: exit {code}"] += 1
        self._look(code, seen)
        if os.waitstatus_to_exitcode(os.waitpid(begin(self.arguments, self.log), 0)[1]):
            self.wrong["next runs that failed"] += 1
            print(self.log.read_text())
            return
        self.wrong["other pictures"] += pictures(self.output) != self.whole
        left = os.listdir(self.output.parent)
        self.wrong["files that outlive the next run"] += left != [self.output.name]
        self.output.unlink()

    def _aim(self, who: str) -> tuple[int, int, list[int]]:
        """A run at a random instant: it, what is to be ended, and all its ffmpegs."""
        process = begin(self.arguments, self.log)
        time.sleep(self.chance.random() * self.seconds)
        seen = children(process)
        if who == "parent":
            return process, process, seen
        deadline = time.monotonic() + self.seconds
        while not seen and runs(process) and time.monotonic() < deadline:
            seen = children(process)
        return process, self.chance.choice(seen) if seen else process, seen

    def _look(self, code: int, seen: list[int]) -> None:
        told = self.log.read_text(errors="replace")
        if "Traceback" in told or "internal error" in told:
            self.wrong["tracebacks"] += 1
            print(told)
        ends = time.monotonic() + 3
        while any(map(runs, seen)) and time.monotonic() < ends:
            time.sleep(0.05)
        self.wrong["orphans"] += any(map(runs, seen))
        left = [e for e in os.listdir(self.output.parent) if not e.endswith(".work")]
        if self.output.exists():
            self.wrong["half results"] += pictures(self.output) != self.whole
            self.output.unlink()
            left.remove(self.output.name)
        else:
            self.wrong["done, and no result"] += code == 0
        self.wrong["files left by a run that could remove them"] += bool(left) and code >= 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--seconds", type=float, default=3600)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    work.PIECE_SECONDS = 0.4  # pyrefly: ignore[bad-assignment]
    portrait = Path(__file__).parents[1] / "samples" / "portrait.png"
    pixels = np.asarray(Image.open(portrait).convert("RGB"))
    # What a command imports late, so that a trial begins at once.
    import metaportrait_cli.pipeline.animate  # noqa: F401, PLC0415

    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name) / "out"
        out.mkdir()
        frames = [scene(pixels, [(40 + 2 * i, 20, 200)]) for i in range(FRAMES)]
        sound = ("-f", "lavfi", "-t", "1.2", "-i", "sine=f=440:r=48000")
        clip = write_clip(folder / "a.mp4", frames, inputs=sound)
        output = out / "o.mp4"
        arguments = ["animate", str(portrait), str(clip), "-o", str(output), "--weights", "none"]
        arguments += ["--crop", "--size", "64", "--resume", "--quiet"]
        trials = Trials(arguments, output, folder / "log", random.Random(asked.seed))
        started = time.monotonic()
        trials.measure()
        for trial in range(asked.count):
            if time.monotonic() - started > asked.seconds:
                break
            trials.one(trial)
    for what, count in sorted(trials.counts.items()):
        print(f"{count:4} {what}")
    total = sum(trials.counts.values())
    print(f"{total} trials in {time.monotonic() - started:.0f} s")
    print("wrong:", dict(+trials.wrong) or "nothing")


if __name__ == "__main__":
    main()
