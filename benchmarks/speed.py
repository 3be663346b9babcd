"""What a frame of `animate` costs, end to end, as a table that the README may quote.

    python -m benchmarks.speed [--sides 512 1080] [--weights none bundled] [--seconds 10] [--runs 5]

Each row is the median of the runs, each a process of its own on the sample: frames a second by the
clock, start and end included; core-milliseconds a frame of the process and its ffmpegs, which do
not depend on what else the machine does; the most memory; and the report's own milliseconds a
frame by stage, which overlap. A first run, not counted, prepares the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.animate import ROOT, resident_mb
from metaportrait_cli.media.binaries import ffmpeg_binary

SIZES = {512: "512:512", 1080: "1920:1080"}
COLUMNS = ("driver", "weights", "precision", "frames/s", "core-ms a frame", "start, s", "MB")


@dataclass(frozen=True)
class Run:
    """One command, measured."""

    seconds: float
    core_seconds: float
    megabytes: float
    report: dict

    @property
    def frames(self) -> int:
        """Of the clip."""
        return self.report["frames"]


def clip(folder: Path, side: int, seconds: int) -> Path:
    """The sample's driver again and again, at 25 frames a second."""
    path = folder / f"{side}-{seconds}.mp4"
    driver = ROOT / "samples" / "driver.mp4"
    size = SIZES[side]
    shape = f"fps=25,scale={size}:force_original_aspect_ratio=decrease,pad={size}:-1:-1"
    command = [ffmpeg_binary(), "-nostdin", "-v", "error", "-stream_loop", "-1", "-i", str(driver)]
    command += ["-y", "-t", str(seconds), "-vf", shape, "-c:v", "libx264", "-preset", "veryfast"]
    subprocess.run([*command, "-c:a", "aac", str(path)], check=True)
    return path


def measured(driver: Path, folder: Path, more: Sequence[str]) -> Run:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "metaportrait_cli", "animate"]
    command += [
        "-s",
        str(ROOT / "samples" / "portrait.png"),
        "-d",
        str(driver),
        "--quiet",
        "--json",
    ]
    command += ["-o", str(folder / "out.mp4"), "--overwrite", *more]
    started = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    peak = [0.0]

    def watch() -> None:
        while child.returncode is None:
            peak[0] = max(peak[0], resident_mb(child.pid))
            time.sleep(0.1)

    threading.Thread(target=watch, daemon=True).start()
    assert child.stdout is not None  # noqa: S101  asked for above
    told = child.stdout.read()
    # With what its own children took.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
    seconds = time.perf_counter() - started
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak[0], json.loads(told))


def row(runs: Sequence[Run], short: Sequence[Run]) -> list[str]:
    """The figures of runs over a clip, and over one of a second."""

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    return [
        f"{median([run.frames / run.seconds for run in runs]):.1f}",
        f"{median([1000 * run.core_seconds / run.frames for run in runs]):.1f}",
        f"{median([run.seconds for run in short]):.1f}",
        f"{median([run.megabytes for run in runs]):.0f}",
    ]


def main() -> None:
    """Prints the table, then the stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--weights", nargs="+", default=["none", "bundled"])
    parser.add_argument("--precisions", nargs="+", default=["auto"])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), sep="\n")
    stages: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        second = clip(folder, 512, 1)
        for side in chosen.sides:
            long = clip(folder, side, chosen.seconds)
            for weights in chosen.weights:
                for precision in chosen.precisions if weights != "none" else ["auto"]:
                    more = ["--precision", precision]
                    more += [] if weights == "bundled" else ["--weights", weights]
                    measured(second, folder, more)
                    short = [measured(second, folder, more) for _ in range(chosen.runs)]
                    runs = [measured(long, folder, more) for _ in range(chosen.runs)]
                    what = [SIZES[side].replace(":", "×"), weights, precision]
                    print("| " + " | ".join([*what, *row(runs, short)]) + " |", flush=True)
                    stages[" ".join(what)] = runs[-1].report["stage_ms_per_frame"]
    for what, found in stages.items():
        print(f"{what}: " + ", ".join(f"{stage} {value}" for stage, value in found.items()))


if __name__ == "__main__":
    main()
