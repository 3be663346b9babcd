"""What a frame of `animate` costs, end to end, as a table that the README may quote.

    python -m benchmarks.speed [--sides 512 1080] [--weights none bundled] [--precisions auto bf16]
        [--seconds 10] [--runs 5] [--beside OLDER_CHECKOUT …]

Each row is the median of the runs, each a process of its own on the sample: frames a second by the
clock, start and end included; core-milliseconds a frame of the process and its ffmpegs; seconds of
a clip of one second, all included; the most memory. Checkouts are run by turns, so that whatever
else the machine does is shared. A first run, not counted, prepares the weights. Then a table of
core-milliseconds by stage (`core_time.py`), of the first precision. On CPUs other precisions than
fp32 (`auto`) are torch's: ncnn runs our networks in fp32 alone.
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
UNCOMPILED = "PYTHONDONTWRITEBYTECODE"
COLUMNS = (
    *("driver", "weights", "precision", "code"),
    *("frames/s", "core-ms a frame", "1 s clip, s", "MB"),
)


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


def environment(checkout: Path) -> dict[str, str]:
    """For processes that are to run its code, which an installed package is compiled of once."""
    compiled = {name: value for name, value in os.environ.items() if name != UNCOMPILED}
    return {**compiled, "PYTHONPATH": str(checkout)}


def measured(checkout: Path, driver: Path, folder: Path, more: Sequence[str]) -> Run:
    """A checkout's command in a process of its own."""
    command = [sys.executable, "-m", "metaportrait_cli", "animate", "--quiet", "--json"]
    command += ["-s", str(ROOT / "samples" / "portrait.png"), "-d", str(driver)]
    command += ["-o", str(folder / "out.mp4"), "--overwrite", *more]
    started = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=checkout, env=environment(checkout), stdout=subprocess.PIPE
    )
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


def stages(checkout: Path, driver: Path, folder: Path, weights: str) -> dict[str, float]:
    """Core-milliseconds a frame by stage."""
    command = [sys.executable, str(Path(__file__).with_name("core_time.py")), str(driver), weights]
    done = subprocess.run(
        [*command, str(folder / "out.mp4")],
        cwd=checkout,
        env=environment(checkout),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def row(runs: Sequence[Run], short: Sequence[Run]) -> list[str]:
    """The figures of runs over a clip, and over one of a second."""

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    return [
        f"{median([run.frames / run.seconds for run in runs]):.1f}",
        f"{median([1000 * run.core_seconds / run.frames for run in runs]):.1f}",
        f"{median([run.seconds for run in short]):.1f}" if short else "",
        f"{median([run.megabytes for run in runs]):.0f}",
    ]


def show(*cells: str) -> None:
    """A row of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Prints the table, then the stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--weights", nargs="+", default=["none", "bundled"])
    parser.add_argument("--precisions", nargs="+", default=["auto", "bf16"])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], metavar="CHECKOUT")
    chosen = parser.parse_args()
    checkouts = [ROOT, *(path.resolve() for path in chosen.beside)]
    precisions = {"none": chosen.precisions[:1]}
    show(*COLUMNS)
    print("|" + "---|" * len(COLUMNS))
    spent: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        second = clip(folder, min(SIZES), 1)
        for side in chosen.sides:
            long = clip(folder, side, chosen.seconds)
            for weights in chosen.weights:
                what = [SIZES[side].replace(":", "×"), weights]
                for precision in precisions.get(weights, chosen.precisions):
                    more = ["--precision", precision]
                    more += [] if weights == "bundled" else ["--weights", weights]
                    runs: dict[Path, list[Run]] = {checkout: [] for checkout in checkouts}
                    short: dict[Path, list[Run]] = {checkout: [] for checkout in checkouts}
                    for checkout in checkouts:
                        measured(checkout, second, folder, more)
                    for _ in range(chosen.runs):
                        for checkout in checkouts:
                            runs[checkout].append(measured(checkout, long, folder, more))
                            if side == min(SIZES):
                                short[checkout].append(measured(checkout, second, folder, more))
                    for checkout in checkouts:
                        figures = row(runs[checkout], short[checkout])
                        show(*what, precision, checkout.name, *figures)
                for checkout in checkouts:
                    title = " ".join([*what, checkout.name])
                    spent[title] = stages(checkout, long, folder, weights)
    print()
    show("core-ms a frame", *spent)
    print("|" + "---|" * (len(spent) + 1))
    for stage in sorted(dict.fromkeys(stage for found in spent.values() for stage in found)):
        show(stage, *(f"{found.get(stage, 0):.1f}" for found in spent.values()))
    show("sum", *(f"{sum(found.values()):.1f}" for found in spent.values()))


if __name__ == "__main__":
    main()
