"""A batch of 60 jobs, ten of them bad: in one go, on two shards that are killed midway, and on a
Ray cluster that loses one of two nodes.

    python benchmarks/batches.py

Shows how the jobs ended, and whether all ways made the same pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def told_by(running: subprocess.Popen[str], when: Callable[[int], None]) -> list[dict[str, Any]]:
    """Results of a batch to its end; `when` is called with their number after each."""
    results = []
    for line in running.stdout or ():
        results.append(json.loads(line))
        when(len(results))
    running.wait()
    return results


def on_shards(folder: Path, seconds: float, chance: random.Random) -> list[dict[str, Any]]:
    """Of two shards, each killed twice, what their last runs told."""
    results: list[dict[str, Any]] = []
    for part in ("1/2", "2/2"):
        again = ("--shard", part, "--skip-existing", "--resume")
        for _ in range(KILLS):
            running = batch(folder, *again)
            time.sleep(seconds / 2 * chance.uniform(0.2, 0.7))
            running.send_signal(signal.SIGKILL)
            told, _ = running.communicate()
            print(f"shard {part}: killed after {len(told.splitlines())} results")
        running = batch(folder, *again)
        results += told_by(running, lambda _number: None)
        print(f"shard {part}, after {KILLS} kills: exit {running.returncode}")
    return results


def on_cluster(folder: Path) -> list[dict[str, Any]]:
    """Of a Ray cluster of two nodes, one of which is lost in the midst of its jobs."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415  optional

    os.environ["PYTHONPATH"] = str(ROOT)  # of its workers
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    lost, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)

    def lose(number: int) -> None:
        if number == JOBS // 3:
            cluster.remove_node(lost, allow_graceful=False)
            print(f"a node is lost after {number} results")

    running = batch(folder, "--engine", "ray", "--address", cluster.address)
    results = told_by(running, lose)
    print("on two nodes: exit", running.returncode)
    cluster.shutdown()
    return results


def show(what: str, results: list[dict[str, Any]], folder: Path, whole: Path) -> None:
    """How jobs ended, and how the pictures compare with those of the whole batch."""
    print(f"{what}: {dict(Counter(result['status'] for result in results))}")
    failed = [result for result in results if result["status"] == "failed"]
    jobs = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    explained = sum(jobs[each["job"] - 1]["driver"] in each["error"] for each in failed)
    print(f"  {len(failed)} failed, {explained} with the name of what is wrong;", end=" ")
    print("exit codes", dict(Counter(result["exit_code"] for result in failed)))
    made = sorted(path.name for path in whole.glob("o*.mp4"))
    same = sum(
        np.array_equal(np.stack(decoded(whole / each)), np.stack(decoded(folder / each)))
        for each in made
        if (folder / each).exists()
    )
    extra = sorted(path.name for path in folder.glob("o*.mp4") if path.name not in made)
    hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    print(f"  {same} of {len(made)} with the same pictures; more: {extra}; left: {hidden}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--no-cluster", action="store_true", help="where there is no Ray")
    asked = options.parse_args()
    pixels = np.asarray(Image.open(ROOT / "samples" / "portrait.png").convert("RGB"))
    with tempfile.TemporaryDirectory() as name:
        places = ("whole", "shards", "cluster")
        whole, shards, cluster = (prepared(Path(name) / each, pixels) for each in places)
        started = time.monotonic()
        running = batch(whole)
        results = told_by(running, lambda _number: None)
        seconds = time.monotonic() - started
        print(f"in one go: exit {running.returncode}, {seconds:.0f} s")
        show("in one go", results, whole, whole)
        show("on shards", on_shards(shards, seconds, random.Random(0)), shards, whole)
        if not asked.no_cluster:
            show("on a cluster", on_cluster(cluster), cluster, whole)


if __name__ == "__main__":
    main()
