"""A batch of 60 jobs, ten of them bad: in one go, and on two shards that are killed midway.

    python benchmarks/batches.py

Shows how the jobs ended, and whether both ways made the same pictures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from tests.clips import decoded, scene, write_clip

ROOT = Path(__file__).parents[1]
JOBS, BAD = 60, 10
KILLS = 2
"""Of each shard."""


def batch(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "metaportrait_cli", "batch", str(folder / "jobs.jsonl")]
    return subprocess.Popen(
        [*command, "--weights", "none", "--quiet", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def prepared(folder: Path, pixels: np.ndarray) -> Path:
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "face.png")
    for number in range(3):
        frames = [scene(pixels, [(40 + (2 + number) * i, 20, 200)]) for i in range(6)]
        write_clip(folder / f"{number}.mp4", frames)
    write_clip(folder / "blank.mp4", [scene(pixels, [])] * 2)
    (folder / "broken.mp4").write_bytes(bytes(300))
    bad = ("blank.mp4", "broken.mp4", "missing.mp4")
    lines = []
    for number in range(JOBS):
        wrong = number % (JOBS // BAD) == 4
        driver = bad[number // 6 % 3] if wrong else f"{number % 3}.mp4"
        job = {"source": "face.png", "driver": driver, "output": f"o{number:02}.mp4"}
        lines.append(json.dumps({**job, "full": False, "size": 64 + 2 * (number % 8)}))
    (folder / "jobs.jsonl").write_text("\n".join(lines))
    return folder


def main() -> None:
    chance = random.Random(0)
    pixels = np.asarray(Image.open(ROOT / "samples" / "portrait.png").convert("RGB"))
    with tempfile.TemporaryDirectory() as name:
        whole, broken = (prepared(Path(name) / each, pixels) for each in ("whole", "broken"))
        started = time.monotonic()
        told, _ = (running := batch(whole)).communicate()
        seconds = time.monotonic() - started
        results = [json.loads(line) for line in told.splitlines()]
        print("in one go: exit", running.returncode, dict(Counter(r["status"] for r in results)))
        print(dict(Counter(r["exit_code"] for r in results)), f"{seconds:.0f} s")
        for part in ("1/2", "2/2"):
            for _ in range(KILLS):
                running = batch(broken, "--shard", part, "--skip-existing", "--resume")
                time.sleep(seconds / 2 * chance.uniform(0.2, 0.7))
                running.send_signal(signal.SIGKILL)
                running.communicate()
            running = batch(broken, "--shard", part, "--skip-existing", "--resume")
            told, _ = running.communicate()
            ended = Counter(json.loads(line)["status"] for line in told.splitlines())
            print(f"shard {part}, after {KILLS} kills: exit {running.returncode}", dict(ended))
        made = sorted(path.name for path in whole.glob("o*.mp4"))
        same = sum(
            np.array_equal(np.stack(decoded(whole / each)), np.stack(decoded(broken / each)))
            for each in made
            if (broken / each).exists()
        )
        hidden = [path.name for path in broken.iterdir() if path.name.startswith(".")]
        print(f"{len(made)} results, {same} with the same pictures; left: {hidden or 'nothing'}")


if __name__ == "__main__":
    main()
