"""Speed and memory of `animate` or `upscale`, end to end, on this machine.

    python benchmarks/animate.py [animate] [--source portrait.png] [--driver driver.mp4]
    python benchmarks/animate.py upscale [--driver driver.mp4] [--side 256] [--seconds 10 180]

The driver is looped to 10 seconds and to 5 minutes at 512 × 512 and 25 frames a second; each run is
a process of its own, whose memory (children included) is sampled. The short clip is run three
times, for peaks of equal runs differ by a tenth. Prints frames a second, milliseconds a stage, and
the ratio of the long clip's peak to the median of the short one's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from metaportrait_cli.media.binaries import ffmpeg_binary

ROOT = Path(__file__).parent.parent
RATE = 25
PROGRAM = (sys.executable, "-m", "metaportrait_cli")


def looped(driver: Path, seconds: int, folder: Path, *, side: int) -> Path:
    """The driver again and again, `side` × `side` at 25 frames a second."""
    path = folder / f"{seconds}s.mp4"
    command = [ffmpeg_binary(), "-nostdin", "-v", "error", "-stream_loop", "-1", "-i", str(driver)]
    command += ["-y", "-t", str(seconds), "-vf", f"fps={RATE},scale={side}:{side}"]
    command += ["-c:v", "libx264"]
    command += ["-preset", "veryfast", "-c:a", "aac", str(path)]
    subprocess.run(command, check=True)
    return path


def resident_mb(process: int) -> float:
    """Memory of a process and its children (Linux), shared pages counted by share."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        threads = Path(f"/proc/{process}/task").iterdir()
        children = {c for t in threads for c in (t / "children").read_text().split()} or children
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    # One that has not become its own program yet is in its parent's memory.
    others = [child for child in map(int, children) if _command(child) != _command(process)]
    return pss / 1024 + sum(map(resident_mb, others))


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def measure(arguments: Sequence[str | Path], folder: Path) -> tuple[dict, float]:
    """The report of a command and its peak memory in MB."""
    shared = ["-o", folder / "out.mp4", "--overwrite", "--json", "--quiet"]
    child = subprocess.Popen(
        [*PROGRAM, *map(str, [*arguments, *shared])], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    peak = 0.0
    while child.poll() is None:
        peak = max(peak, resident_mb(child.pid))
        time.sleep(0.1)
    assert child.stdout is not None  # noqa: S101
    return json.loads(child.stdout.read()), peak


def main() -> None:
    """Runs both lengths and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("animate", "upscale"), nargs="?", default="animate")
    parser.add_argument("--source", type=Path, default=ROOT / "samples" / "portrait.png")
    parser.add_argument("--driver", type=Path, default=ROOT / "samples" / "driver.mp4")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--seconds", type=int, nargs=2, default=(10, 300))
    parser.add_argument("--weights", help="what the command takes by this name")
    chosen = parser.parse_args()
    arguments = ["animate", "-s", chosen.source, "-d"]
    if chosen.command == "upscale":
        arguments = ["upscale", "-i"]
    weights = ["--weights", chosen.weights] if chosen.weights else []
    short, long = chosen.seconds
    peaks: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in (short, short, short, long):
            clip = looped(chosen.driver, seconds, folder, side=chosen.side)
            report, peak = measure([*arguments, clip, *weights], folder)
            peaks.setdefault(seconds, []).append(peak)
            fps = report["frames"] / report["elapsed_seconds"]
            stages = "  ".join(f"{k} {v}" for k, v in report["stage_ms_per_frame"].items())
            print(
                f"{seconds:4d} s: {report['frames']} frames, {fps:.1f} fps"
                f" ({fps / RATE:.2f}x real time), peak {peak:.0f} MB; ms a frame: {stages}"
            )
    print(f"memory, long over short: {peaks[long][0] / statistics.median(peaks[short]):.3f}")


if __name__ == "__main__":
    main()
