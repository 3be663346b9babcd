"""Speed and memory of `animate`, end to end, on this machine.

    python benchmarks/animate.py [--source portrait.png] [--driver driver.mp4] [--weights none]

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
from pathlib import Path

from metaportrait_cli.media.binaries import ffmpeg_binary

ROOT = Path(__file__).parent.parent
RATE = 25
SHORT, LONG = 10, 300  # seconds
PROGRAM = (sys.executable, "-c", "from metaportrait_cli.cli.app import main; main()")


def looped(driver: Path, seconds: int, folder: Path) -> Path:
    """The driver again and again, 512 × 512 at 25 frames a second."""
    path = folder / f"{seconds}s.mp4"
    command = [ffmpeg_binary(), "-nostdin", "-v", "error", "-stream_loop", "-1", "-i", str(driver)]
    command += ["-y", "-t", str(seconds), "-vf", f"fps={RATE},scale=512:512", "-c:v", "libx264"]
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
    return pss / 1024 + sum(resident_mb(int(child)) for child in children)


def measure(source: Path, driver: Path, weights: str, folder: Path) -> tuple[dict, float]:
    """The run's report and its peak memory in MB."""
    output = folder / "out.mp4"
    arguments = ["animate", "-s", source, "-d", driver, "-o", output, "--overwrite", "--json"]
    arguments += ["--weights", weights]
    child = subprocess.Popen(
        [*PROGRAM, *map(str, arguments), "--quiet"], cwd=ROOT, stdout=subprocess.PIPE, text=True
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
    parser.add_argument("--source", type=Path, default=ROOT / "samples" / "portrait.png")
    parser.add_argument("--driver", type=Path, default=ROOT / "samples" / "driver.mp4")
    parser.add_argument("--weights", default="none")
    chosen = parser.parse_args()
    peaks: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in (SHORT, SHORT, SHORT, LONG):
            driver = looped(chosen.driver, seconds, folder)
            report, peak = measure(chosen.source, driver, chosen.weights, folder)
            peaks.setdefault(seconds, []).append(peak)
            fps = report["frames"] / report["elapsed_seconds"]
            stages = "  ".join(f"{k} {v}" for k, v in report["stage_ms_per_frame"].items())
            print(
                f"{seconds:4d} s: {report['frames']} frames, {fps:.1f} fps"
                f" ({fps / RATE:.2f}x real time), peak {peak:.0f} MB; ms a frame: {stages}"
            )
    print(f"memory, long over short: {peaks[LONG][0] / statistics.median(peaks[SHORT]):.3f}")


if __name__ == "__main__":
    main()
