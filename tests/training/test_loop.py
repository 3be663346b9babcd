"""The loop that all trainings run in: it goes on where it stopped, and stops at nonsense."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaportrait_cli.errors import TrainingError, UsageError, WeightsError
from metaportrait_cli.networks.network import Network
from metaportrait_cli.training import loop
from metaportrait_cli.training.descent import (
    FINAL_SHARE,
    Descent,
    DescentConfig,
    Terms,
    rate_share,
)
from metaportrait_cli.training.loop import Record, Task, train
from metaportrait_cli.training.place import Place, RunOptions
from metaportrait_cli.training.state import RunFolder, Scores, Stateful
from metaportrait_cli.weights.store import load_network, read_header

EVERY_STEP = RunOptions(log_every=1)
CPU = Place(torch.device("cpu"))


@dataclass(frozen=True)
class LineConfig:
    width: int = 3


class Line(Network):
    """A weighted sum, with noise in training as dropout has it."""

    config_type = LineConfig
    noise = 0.1

    def __init__(self, config: LineConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.zeros(config.width))

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(len(x)) if self.training else torch.zeros(len(x))
        return x @ self.weight + self.noise * noise


class LineTask(Task[Tensor]):
    """Learns the sum of three numbers."""

    architecture = "line"

    def __init__(
        self, config: DescentConfig, *, bad_step: int | None = None, place: Place = CPU
    ) -> None:
        self.config = config
        self._bad_step = bad_step
        self._place = place
        torch.manual_seed(config.seed)
        self.network = Line(LineConfig())
        self._descent = Descent({"line": self.network}, config, place)

    @property
    def state(self) -> Stateful:
        return self._descent.state

    @property
    def weights(self) -> Mapping[str, Line]:
        return self._descent.averaged

    def batches(self, steps: range) -> Iterator[Tensor]:
        samples = [torch.randn(3, generator=torch.Generator().manual_seed(n)) for n in range(200)]
        return self._place.batches(samples, steps, count=self.config.batch)  # type: ignore[arg-type]

    def step(self, batch: Tensor, number: int) -> Terms:
        bad = float("inf") if number + 1 == self._bad_step else 1.0
        return self._descent.step(
            number,
            lambda: {"squares": bad * (self.network(batch) - batch.sum(dim=1)).square().mean()},
        )

    def judge(self) -> Scores:
        return {"line": {"apart": float((self.weights["line"].weight - 1).abs().mean())}}

    def merit(self, scores: Scores) -> float:
        return scores["line"]["apart"]

    @property
    def notes(self) -> Mapping[str, str]:
        return {"about": "sums"}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"numbers": 3}


CONFIG = DescentConfig(steps=8, batch=4, lr=0.3, warm_up=1, average=0.5)


def run(
    folder: Path,
    config: DescentConfig = CONFIG,
    options: RunOptions = EVERY_STEP,
    **task: Any,
) -> tuple[dict[str, Any], list[Record]]:
    records: list[Record] = []
    card = train(
        LineTask(config, **task),
        RunFolder(folder, config),
        options=options,
        place=CPU,
        on_record=records.append,
    )
    return card, records


def test_what_is_learnt_is_in_the_weights_the_log_and_the_card(tmp_path: Path) -> None:
    card, records = run(tmp_path, replace(CONFIG, steps=40))
    line = load_network(Line, tmp_path / "last.safetensors", part="line")
    assert (line.weight - 1).abs().max() < 0.3
    header = read_header(tmp_path / "last.safetensors")
    assert header.architecture == "line"
    assert header.notes["about"] == "sums"
    assert json.loads(header.notes["training"]) == {"step": 40}
    logged = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged == records
    assert [record["step"] for record in records if "terms" in record] == list(range(1, 41))
    assert records[0]["terms"].keys() == {"squares", "total", "gradient"}
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(card))
    assert (card["step"], card["parameters"], card["numbers"]) == (40, 3, 3)
    assert card["best"] == card["held_out"]["line"]["apart"] < 0.3


@pytest.mark.parametrize("stops", [[3], [1, 2, 7]])
def test_stopping_and_going_on_is_the_same_as_not_stopping(
    stops: list[int], tmp_path: Path
) -> None:
    straight, _ = run(tmp_path / "straight")
    for stop in stops:
        torch.manual_seed(stop)  # chance outside of the run has no part in it
        run(tmp_path / "pieces", options=replace(EVERY_STEP, stop_at=stop))
    pieces, records = run(tmp_path / "pieces")
    assert records[0]["step"] == stops[-1] + 1
    ours, theirs = (
        torch.load(tmp_path / name / "state.pt", weights_only=True)
        for name in ("straight", "pieces")
    )
    assert torch.equal(ours["rng"], theirs["rng"])
    for part in ("line", "average_line"):
        assert torch.equal(ours["parts"][part]["weight"], theirs["parts"][part]["weight"])
    moments = [state["parts"]["optimizer"]["state"][0]["exp_avg"] for state in (ours, theirs)]
    assert torch.equal(*moments)
    assert straight["held_out"] == pieces["held_out"]


def test_scores_and_the_best_survive_a_resumed_piece(tmp_path: Path) -> None:
    options = replace(EVERY_STEP, judge_every=3)
    judged, _ = run(tmp_path, options=replace(options, stop_at=3))
    assert judged["held_out"]["line"]["apart"] > 0
    best = (tmp_path / "best.safetensors").read_bytes()
    later, records = run(tmp_path, options=replace(options, stop_at=4))
    assert not any("held_out" in record for record in records)
    assert later["held_out"] == judged["held_out"]
    assert later["best"] == judged["best"]
    assert later["seconds"] >= judged["seconds"]
    # A worse one doesn't replace it.
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["standing"]["best"] = 0.0
    torch.save(state, tmp_path / "state.pt")
    run(tmp_path, options=options)
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    card, _ = run(tmp_path)
    before = (tmp_path / "state.pt").stat().st_mtime_ns
    again, records = run(tmp_path)
    assert records == []
    assert again == card
    assert (tmp_path / "state.pt").stat().st_mtime_ns == before


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(
    log_every: int, tmp_path: Path
) -> None:
    run(tmp_path, options=replace(EVERY_STEP, stop_at=2))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.[ps][ta]*")}
    assert before.keys() == {"state.pt", "last.safetensors"}
    # However late it is looked at: before anything is judged or saved.
    options = RunOptions(log_every=log_every, judge_every=6, save_minutes=0.0)
    with pytest.raises(TrainingError, match=r"step 4: the loss .* not finite"):
        run(tmp_path, options=replace(options, save_minutes=9.0), bad_step=4)
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content
    assert not (tmp_path / "best.safetensors").exists()
    with pytest.raises(TrainingError, match="step 4"):
        run(tmp_path, options=options, bad_step=4)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["standing"]["step"] == 3


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """A step may be too long for a loss that is finite still."""
    run(tmp_path, options=replace(EVERY_STEP, stop_at=2))
    before = (tmp_path / "last.safetensors").read_bytes()

    class Overflowing(LineTask):
        def step(self, batch: Tensor, number: int) -> Terms:
            terms = super().step(batch, number)
            self.weights["line"].weight[0] = float("inf")
            return terms

    with pytest.raises(TrainingError, match="step 3: a weight of 'line' is not finite"):
        train(
            Overflowing(CONFIG),
            RunFolder(tmp_path, CONFIG),
            options=replace(EVERY_STEP, stop_at=3),
            place=CPU,
        )
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count()  # a minute each time that somebody looks
    monkeypatch.setattr(loop.time, "monotonic", lambda: 60.0 * next(clock))
    saved: list[int] = []
    save = RunFolder.save

    def noted(self: RunFolder, parts: Stateful, standing: Any) -> None:
        saved.append(standing.step)
        save(self, parts, standing)

    monkeypatch.setattr(RunFolder, "save", noted)
    options = RunOptions(log_every=100, judge_every=100, minutes=9, save_minutes=4)
    card, records = run(tmp_path, options=options)
    assert card["step"] < CONFIG.steps
    assert records[-1]["step"] == card["step"]  # what was learnt is told, however little
    assert saved[-1] == card["step"]
    assert len(saved) > 1
    assert card["seconds"] >= 9 * 60


def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path, options=replace(EVERY_STEP, stop_at=1))
    with pytest.raises(WeightsError, match=r"other settings \(lr, seed\)"):
        RunFolder(tmp_path, replace(CONFIG, lr=1.0, seed=1))
    (tmp_path / "state.pt").write_bytes(b"PK nonsense")
    with pytest.raises(WeightsError, match="another folder"):
        RunFolder(tmp_path, CONFIG)


def test_one_run_at_a_time_is_at_a_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG).claimed(), pytest.raises(UsageError, match="another run"):
        run(tmp_path)
    run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("state.pt", "last.safetensors", "best.safetensors", "log.jsonl", "card.json"),
    }


def test_a_file_is_no_folder_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(UsageError, match="can't be a folder"):
        RunFolder(tmp_path / "run", CONFIG)


def test_a_rate_warms_up_and_cools_down() -> None:
    rates = [rate_share(step, steps=1000, warm_up=10) for step in range(1001)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert rates[500] == pytest.approx((1 + FINAL_SHARE) / 2)
    assert rates[1000] == pytest.approx(FINAL_SHARE)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_a_rate_stays_for_as_long_as_it_is_told() -> None:
    rates = [rate_share(step, steps=1000, warm_up=0, plateau=0.6) for step in range(1001)]
    assert rates[0] == rates[600] == 1.0
    assert rates[601] < 1.0
    assert rates[1000] == pytest.approx(FINAL_SHARE)


def test_trainings_start_where_few_packages_are() -> None:
    """A rented GPU has torch, numpy, cv2 and safetensors."""
    code = (
        "import sys\n"
        "absent = ('av', 'ffmpeg', 'mediapipe', 'PIL', 'rich', 'tqdm', 'typer')\n"
        "sys.modules.update(dict.fromkeys(absent + ('huggingface_hub', 'imageio_ffmpeg')))\n"
        "import metaportrait_cli.training.meta, metaportrait_cli.training.regions\n"
        "import metaportrait_cli.training.sr, metaportrait_cli.training.warping\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Exchange:
    """`torch.distributed` between threads, each of which stands for a process."""

    def __init__(self, world: int) -> None:
        self._all = threading.Barrier(world, timeout=30)
        self._given: dict[int, Tensor] = {}

    def all_reduce(self, value: Tensor) -> None:
        self._given[threading.get_ident()] = value.clone()
        self._all.wait()
        total = torch.stack(list(self._given.values())).sum(0)
        self._all.wait()
        value.copy_(total)

    def broadcast(self, value: Tensor, *, src: int) -> None:
        assert src == 0
        own = value if threading.current_thread().name == "0" else torch.zeros_like(value)
        self.all_reduce(own)
        value.copy_(own)


def test_two_processes_learn_as_one_with_twice_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "noise", 0.0)
    run(tmp_path / "one")
    exchange = Exchange(2)
    monkeypatch.setattr(torch.distributed, "all_reduce", exchange.all_reduce)
    monkeypatch.setattr(torch.distributed, "broadcast", exchange.broadcast)
    config = replace(CONFIG, batch=CONFIG.batch // 2)

    def process(rank: int) -> None:
        place = replace(CPU, rank=rank, world=2)
        folder = RunFolder(tmp_path / "two", config)
        # The clocks of processes differ: the first one's counts.
        options = replace(EVERY_STEP, minutes=0.0 if rank else 9.0)
        train(LineTask(config, place=place), folder, options=options, place=place)

    threads = [threading.Thread(target=process, args=(n,), name=str(n)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, two = (
        load_network(Line, tmp_path / name / "last.safetensors", part="line").weight
        for name in ("one", "two")
    )
    assert one.abs().min() > 0.1
    torch.testing.assert_close(one, two)
    lines = (tmp_path / "two" / "log.jsonl").read_text().splitlines()
    assert len(lines) == CONFIG.steps + 1  # and one of judging
