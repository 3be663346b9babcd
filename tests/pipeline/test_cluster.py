"""A batch on a Ray cluster of two nodes on this machine, one of which is lost midway."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.pipeline.batch.cluster import ClusterOptions, run_on_ray
from metaportrait_cli.pipeline.batch.jobs import Job
from metaportrait_cli.pipeline.batch.run import BatchOptions
from metaportrait_cli.pipeline.batch.workers import run_here
from tests.clips import decoded, scene, write_clip

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parent.parent.parent
OPTIONS = BatchOptions(weights="none")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if not os.environ.get("METAPORTRAIT_TEST_CLUSTER"):
        pytest.skip("METAPORTRAIT_TEST_CLUSTER is not set")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_a_lost_node_loses_no_job(
    cluster: Any, portrait: NDArray[np.uint8], portrait_path: Path, tmp_path: Path
) -> None:
    clip = write_clip(
        tmp_path / "a.mp4", [scene(portrait, [(60 + 4 * i, 20, 200)]) for i in range(5)]
    )
    (tmp_path / "bad.mp4").write_bytes(bytes(200))

    def jobs(folder: str) -> list[Job]:
        (tmp_path / folder).mkdir()
        drivers = [clip, clip, tmp_path / "bad.mp4", clip, tmp_path / "missing.mp4", clip]
        small = {"full": False, "size": 64}
        return [
            Job(n, driver, tmp_path / folder / f"{n}.mp4", source=(portrait_path,), settings=small)
            for n, driver in enumerate(drivers, 1)
        ]

    lost, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    results = []
    for result in run_on_ray(jobs("there"), OPTIONS, ClusterOptions(address=cluster.address)):
        if not results:
            cluster.remove_node(lost, allow_graceful=False)
        results.append(result)
    failed = {result.job: result for result in results if result.status == "failed"}
    assert sorted(result.job for result in results) == [1, 2, 3, 4, 5, 6]
    assert sorted(failed) == [3, 5]
    assert failed[3].exit_code == 3
    assert "a path that all machines share" in failed[5].error
    here = list(run_here(jobs("here"), OPTIONS))
    assert [result.job for result in here if result.status == "failed"] == [3, 5]
    for number in (1, 2, 4, 6):
        first, second = (decoded(tmp_path / p / f"{number}.mp4") for p in ("here", "there"))
        np.testing.assert_array_equal(np.stack(first), np.stack(second))
