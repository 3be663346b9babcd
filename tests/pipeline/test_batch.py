"""Batches: what a list may say, and that a bad job stops no other."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.errors import FfmpegError, UsageError
from metaportrait_cli.pipeline.batch import run, workers
from metaportrait_cli.pipeline.batch.jobs import SETTINGS, Job, all_pairs, read_jobs, shard
from metaportrait_cli.pipeline.batch.run import BatchOptions, Result, Runner, animate_options
from metaportrait_cli.pipeline.batch.workers import run_here
from tests.clips import decoded, scene, write_clip

Image = NDArray[np.uint8]
GOOD = {"source": "face.png", "driver": "a.mp4", "output": "out.mp4"}
FAST = BatchOptions(weights="none", retries=1)


def listed(folder: Path, *lines: dict | str) -> Path:
    path = folder / "jobs.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(portrait: Image, portrait_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face, a clip and a clip without any face."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "face.png").write_bytes(portrait_path.read_bytes())
    write_clip(folder / "a.mp4", [scene(portrait, [(60 + 4 * i, 20, 200)]) for i in range(4)])
    write_clip(folder / "blank.mp4", [scene(portrait, [])] * 2)
    (folder / "broken.mp4").write_bytes(bytes(500))
    return folder


def test_a_list_of_jobs(tmp_path: Path) -> None:
    more = {"source": ["a.png", "b.png"], "driver": "/clips/d.mp4", "output": "o.mp4", "face": 2}
    first, second = read_jobs(listed(tmp_path, GOOD, "", {**more, "strength": 0.5, "full": False}))
    assert first == Job(
        1, tmp_path / "a.mp4", tmp_path / "out.mp4", source=(tmp_path / "face.png",)
    )
    assert second.number == 2
    assert second.source == (tmp_path / "a.png", tmp_path / "b.png")
    assert second.driver == Path("/clips/d.mp4")
    options = animate_options(second)
    assert (options.face.number, options.drive.strength, options.full) == (2, 0.5, False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**GOOD, "sorce": "x"}, "line 2: unknown key 'sorce'; known are source"),
        ({"source": "a", "driver": "b"}, "line 2: 'output' is missing"),
        ({"driver": "b", "output": "c"}, "line 2: give either source or portrait"),
        ({**GOOD, "portrait": "p"}, "line 2: give either"),
        ({**GOOD, "output": 7}, "line 2: output is 7, not a path"),
        ({**GOOD, "output": ""}, "not a path"),
        ({**GOOD, "source": ["a", None]}, "source is null, not a path"),
        ({**GOOD, "size": "large"}, 'size is "large", not a number of pixels'),
        ({**GOOD, "size": True}, "not a number of pixels"),
        ({**GOOD, "face": 0}, "from 1"),
        ({**GOOD, "strength": float("nan")}, "strength is NaN, not a number"),
        ({**GOOD, "end": -1}, "end is -1, not a time in seconds"),
        ({**GOOD, "motion": "wild"}, "relative or absolute"),
        ("[1]", "a job is an object in braces, not list"),
        ("{'source': 1}", "line 2: no JSON"),
        ("[" * 100_000, "line 2: no JSON"),
        (GOOD, r"line 2: writes .*out\.mp4 as .* line 1 does"),
        ({**GOOD, "driver": "out.mp4", "output": "b.mp4"}, r"line 2: reads .*out\.mp4, which"),
    ],
)
def test_what_a_list_may_not_say(tmp_path: Path, line: dict | str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_jobs(listed(tmp_path, GOOD, line))
    assert "\n" not in str(caught.value)


def test_an_empty_list_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no job in it"):
        read_jobs(listed(tmp_path, ""))
    with pytest.raises(UsageError, match="a folder; give a list of jobs"):
        read_jobs(tmp_path)


def test_settings_are_those_of_animate() -> None:
    values = {"motion": "relative", "framing": "auto", "region": "all", "face": "largest"}
    values |= {"start": 0.5, "end": 2, "codec": "h265", "crf": 20}
    values |= {"source_face": 1, "strength": 1, "reference_frame": 0, "size": 128, "window": 4}
    settings = {name: values.get(name, True) for name in SETTINGS}
    animate_options(Job(1, Path("d"), Path("o"), settings=settings))


def test_all_with_all(tmp_path: Path) -> None:
    faces, clips = [Path("a/x.jpg"), Path("a/y.jpg")], [Path("b/1.mp4"), Path("b/2.mp4")]
    jobs = all_pairs(faces, clips, str(tmp_path / "{source}--{driver}.mp4"))
    assert [job.output.name for job in jobs] == [
        *("x--1.mp4", "x--2.mp4", "y--1.mp4", "y--2.mp4"),
    ]
    with pytest.raises(UsageError, match="writes"):
        all_pairs(faces, clips, "{source}.mp4")
    for pattern in ("{name}.mp4", "{0}.mp4", "{source.mp4", "{source.parent.x}"):
        with pytest.raises(UsageError, match="pattern"):
            all_pairs(faces, clips, pattern)
    with pytest.raises(UsageError, match="drivers"):
        all_pairs(faces, [], "{source}.mp4")


def test_shards_are_all_jobs_once() -> None:
    jobs = [Job(n, Path("d"), Path(f"{n}")) for n in range(1, 12)]
    parts = [shard(jobs, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(job.number for part in parts for job in part) == list(range(1, 12))
    for wrong in ("0/3", "4/3", "1", "a/b", "-1/3", "1/0"):
        with pytest.raises(UsageError, match="shard"):
            shard(jobs, wrong)


def jobs_in(folder: Path, out: Path) -> list[Job]:
    """Good, bad, good, bad."""
    small = {"full": False, "size": 64}
    names = ("a.mp4", "broken.mp4", "a.mp4", "blank.mp4")
    return [
        Job(n, folder / name, out / f"{n}.mp4", source=(folder / "face.png",), settings=small)
        for n, name in enumerate(names, 1)
    ]


def test_a_bad_job_stops_no_other(folder: Path, tmp_path: Path) -> None:
    results = list(run_here(jobs_in(folder, tmp_path), FAST))
    assert [(r.status, r.exit_code, r.attempts) for r in results] == [
        *(("done", 0, 1), ("failed", 3, 1), ("done", 0, 1), ("failed", 4, 1)),
    ]
    assert "broken.mp4" in results[1].error
    assert results[0].frames == len(decoded(tmp_path / "1.mp4")) == 4
    assert sorted(os.listdir(tmp_path)) == ["1.mp4", "3.mp4"]
    again = BatchOptions(weights="none", skip_existing=True)
    statuses = [r.status for r in run_here(jobs_in(folder, tmp_path)[:3], again)]
    assert statuses == ["skipped", "failed", "skipped"]
    (kept,) = run_here(jobs_in(folder, tmp_path)[:1], FAST)
    assert (kept.status, kept.exit_code) == ("failed", 2)


def test_what_may_go_well_is_tried_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fail(error: BaseException) -> Callable[..., Result]:
        def once(_self: Runner, job: Job, begun: str, _attempt: int, _started: float) -> Result:
            calls.append(begun)
            raise error

        return once

    job = jobs_in(folder, tmp_path)[0]
    for error, attempts, code in (
        (FfmpegError("killed"), 3, 6),
        (MemoryError(), 3, 7),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 3, 7),
        (OSError(28, "No space left on device"), 3, 3),
        (UsageError("no"), 1, 2),
        (ZeroDivisionError("x\ny\x1b[31m"), 1, 1),
    ):
        monkeypatch.setattr(run.Runner, "_once", fail(error))
        calls.clear()
        (result,) = run_here([job], BatchOptions(retries=2))
        assert (result.status, result.attempts, result.exit_code) == ("failed", attempts, code)
        assert calls == ["ask", "resume", "resume"][:attempts]
        assert result.error.isprintable()


def test_what_a_killed_worker_has_made_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what lay there before it, to be overwritten, is."""
    job = Job(1, Path("d"), tmp_path / "o.mp4")
    job.output.write_bytes(b"a clip")
    again = Result(1, "o.mp4", "done", attempts=2)
    monkeypatch.setattr(run.Runner, "_once", lambda *_: again)
    found = Runner(BatchOptions()).run(job, first=2)
    assert (found.status, found.attempts, len(found.notes)) == ("done", 1, 1)
    assert Runner(BatchOptions(overwrite=True)).run(job, first=2) == again
    assert Runner(BatchOptions(skip_existing=True)).run(job, first=2).status == "skipped"


def test_a_killed_worker_costs_an_attempt(folder: Path, tmp_path: Path) -> None:
    jobs = jobs_in(folder, tmp_path)
    results: list[Result] = []
    for result in run_here(jobs, FAST, workers=2):
        if not results:  # whoever is at work now
            me = os.getpid()
            children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
            for child in children:
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
        results.append(result)
    assert {result.job: result.status for result in results} == {
        **{1: "done", 2: "failed", 3: "done", 4: "failed"},
    }, results
    assert sorted(name for name in os.listdir(tmp_path)) == ["1.mp4", "3.mp4"]


def test_a_worker_whose_batch_was_killed_as_it_started_takes_no_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.send("a job")
    ours.close()
    gone = SimpleNamespace(is_alive=lambda: False)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: gone)
    monkeypatch.setattr(workers, "end_with_parent", lambda: None)
    workers._work(theirs, FAST)
    assert theirs.recv() == "a job"


def test_an_interrupt_while_a_worker_starts_is_its_parents(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = workers._Worker(FAST)
    try:
        os.kill(worker.process.pid or 0, signal.SIGINT)
        worker.give(jobs_in(folder, tmp_path)[1], 1)
        assert worker.connection.recv().status == "failed"
    finally:
        worker.end()
        worker.close()
    assert "Traceback" not in capfd.readouterr().err
