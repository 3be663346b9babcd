"""`train sr`: compact temporal super-resolution, from prepared runs to weights.

    metaportrait prepare DATA -o runs --runs 3
    metaportrait train sr runs -o run --features mobilenet_v2-b0353104.pth --minutes 60

and the second line again until the steps are done. A run lives in one folder, as that of
`train base`: `state.pt` to go on from, `last.safetensors` with averaged weights, `log.jsonl`,
`card.json`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from metaportrait_cli.networks.compact_blocks import channels_last
from metaportrait_cli.networks.compact_sr import CompactSR, CompactSRConfig, Reference, enlarged
from metaportrait_cli.training.config import StepReport
from metaportrait_cli.training.data.pairs import is_held_out
from metaportrait_cli.training.data.runs import SHARES, WAYS, RunDataset, Runs, SRSample, run_people
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.run import Sums, seconds_so_far
from metaportrait_cli.training.schedule import rate_share
from metaportrait_cli.training.state import CARD, CHECKPOINT, LOG, Average, Trained, write_card
from metaportrait_cli.weights.store import load_network, save_networks

ARCHITECTURE = "compact_sr"
BETAS = (0.9, 0.99)
CHARBONNIER = 1e-3
JUDGED_FRAMES = 5


@dataclass(frozen=True)
class SRWeights:
    """Weights of the terms; all are means over frames and pixels."""

    pixel: float = 1.0
    perceptual: float = 0.8
    """Its values are about six times those of the pixels"""
    steady: float = 2.0
    """For the change from frame to frame, against the truth's"""


@dataclass(frozen=True)
class SRConfig:
    """What is trained and how; a run can only be continued with the same."""

    model: CompactSRConfig = field(default_factory=CompactSRConfig)
    weights: SRWeights = field(default_factory=SRWeights)
    steps: int = 5000
    batch: int = 4
    patch: int = 48
    """Side of the windows in small pixels"""
    frames: int = 5
    lr: float = 5e-4
    warm_up: int = 100
    clip_norm: float = 0.5
    with_reference: float = 0.5
    """Share of the samples with a reference: it must work without one as well"""
    held_out: float = 0.08
    """Share of the people that is kept for judging"""
    average: float = 0.998
    seed: int = 0


@dataclass(frozen=True)
class SRRunOptions:
    """Where and how long; no influence on what a step does."""

    device: str = "cpu"
    bf16: bool = False
    """Mixed precision; on a CPU it needs AVX512-BF16 or AMX to be faster."""
    workers: int = 0
    """Processes that make samples; 0 makes them in the loop."""
    minutes: float = math.inf
    """Stop, resumable, after this time."""
    stop_at: int | None = None
    """Stop, resumable, after this step."""
    log_every: int = 20
    judge_every: int = 800
    judge_samples: int = 8
    save_minutes: float = 4.0


Scores = dict[str, dict[str, float]]


@dataclass
class _Run:
    """What the loop works on."""

    config: SRConfig
    options: SRRunOptions
    model: CompactSR
    average: Average[CompactSR]
    optimizer: torch.optim.Optimizer
    perceptual: PerceptualLoss | None
    device: torch.device
    step: int = 0

    @property
    def trained(self) -> Trained:
        parts = {"model": self.model, "average": self.average.network, "optimizer": self.optimizer}
        return Trained(parts)


def train_sr(
    config: SRConfig,
    data: Path,
    output: Path,
    *,
    options: SRRunOptions,
    start_from: Path | None = None,
    perceptual: PerceptualLoss | None = None,
    on_report: Callable[[StepReport], None] = lambda _report: None,
    on_judged: Callable[[int, Scores], None] = lambda _step, _scores: None,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `start_from` gives a new run the weights of an earlier one. Without `perceptual` pixels alone
    are compared. Raises `TrainingError` with the step's number once a loss or gradient is not
    finite; the last checkpoint stays as it was.
    """
    run = _set_up(config, options, start_from=start_from, perceptual=perceptual)
    output.mkdir(parents=True, exist_ok=True)
    settings = asdict(config)
    if (output / CHECKPOINT).is_file():
        run.step, _ = run.trained.restore(output / CHECKPOINT, config=settings)
    runs = Runs.load(data)
    people = run_people(runs)
    kept = [person for person in people if is_held_out(person, share=config.held_out)]
    judged = judged_samples(runs, people=kept, config=config, count=options.judge_samples)
    batches = _batches_to_come(run, runs, people=sorted(set(people) - set(kept)))

    started = saved = reported = time.monotonic()
    first_step, seconds_before = run.step, seconds_so_far(output)
    sums, scores = Sums(run.device), {}
    last = min(config.steps, options.stop_at or config.steps)
    while run.step < last and time.monotonic() - started < 60 * options.minutes:
        terms = train_step(run, next(batches))
        run.step += 1
        run.average.update(run.model, run.step)
        sums.add(terms, run.step)

        if run.step % options.log_every == 0 or run.step == last:
            means = sums.means()  # raises if a number was not finite
            now = time.monotonic()
            report = StepReport(run.step, means, round((now - reported) / sums.count, 4))
            sums, reported = Sums(run.device), now
            _log(output, asdict(report))
            on_report(report)
        if judged and (run.step % options.judge_every == 0 or run.step == config.steps):
            scores = judge(run.average.network, judged, perceptual=perceptual, device=run.device)
            _log(output, {"step": run.step, "held_out": scores})
            on_judged(run.step, scores)
            reported = time.monotonic()
        if time.monotonic() - saved > 60 * options.save_minutes:
            sums.check()
            _save(run, output, settings)
            saved = time.monotonic()

    sums.check()
    if run.step > first_step:
        _save(run, output, settings)
    seconds = seconds_before + time.monotonic() - started
    card = _card_of(run, data=data, runs=runs, kept=kept, seconds=seconds, scores=scores)
    write_card(output / CARD, card)
    return card


def train_step(run: _Run, batch: Sequence[SRSample]) -> dict[str, Tensor]:
    """One step; returns the weighted terms."""
    config = run.config
    share = rate_share(run.step, steps=config.steps, warm_up=config.warm_up)
    for group in run.optimizer.param_groups:
        group["lr"] = config.lr * share
    batch = [_on(sample, run.device) for sample in batch]
    autocast = torch.autocast(run.device.type, torch.bfloat16)
    with autocast if run.options.bf16 else nullcontext():
        # Clips have no batch axis: time is theirs, and one more would cost every block a reshape.
        results = [run.model(sample.frames, sample.reference) for sample in batch]
        terms = sr_terms(
            torch.stack(results),
            torch.stack([sample.truth for sample in batch]),
            perceptual=run.perceptual,
            weights=config.weights,
        )
    total = torch.stack(list(terms.values())).sum()
    run.optimizer.zero_grad(set_to_none=True)
    total.backward()
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), run.config.clip_norm)
    run.optimizer.step()
    return {**terms, "total": total.detach(), "gradient": norm.detach()}


def sr_terms(
    result: Tensor, truth: Tensor, *, perceptual: PerceptualLoss | None, weights: SRWeights
) -> dict[str, Tensor]:
    """Weighted scalars by name, of clips (B, T, 3, H, W) in [0, 1].

    Steadiness is the paper's short-term term without its optical flow: what changes from one frame
    to the next must be what changes in the truth. A flow would only undo motion that both share.
    """
    difference = result - truth
    terms = {"pixel": weights.pixel * _charbonnier(difference)}
    if truth.shape[1] > 1:
        change = difference[:, 1:] - difference[:, :-1]
        terms["steady"] = weights.steady * _charbonnier(change)
    if perceptual is not None:
        distance = perceptual.distance(result.flatten(0, 1), truth.flatten(0, 1))
        terms["perceptual"] = weights.perceptual * distance.mean()
    return terms


def judged_samples(
    runs: Runs, *, people: Sequence[str], config: SRConfig, count: int
) -> list[SRSample]:
    """Windows of held-out people, all with a reference where there is one, nothing moved: pictures
    of the renderer differ from their truth by more than detail."""
    if not people:
        return []
    dataset = RunDataset(
        runs,
        people=people,
        length=count,
        seed=config.seed + 1,
        patch=min(2 * config.patch, runs.low.shape[1]),
        frames=JUDGED_FRAMES,
        with_reference=1.0,
        ways=[share * (way != "moved") for way, share in zip(WAYS, SHARES, strict=True)],
    )
    return [dataset[number] for number in range(count)]


@torch.no_grad()
def judge(
    model: CompactSR,
    samples: Iterable[SRSample],
    *,
    perceptual: PerceptualLoss | None,
    device: torch.device,
) -> Scores:
    """Means over the samples for `bicubic`, each frame on its own (`single`), the clip without
    (`alone`) and with (`referred`) its reference. Lower is better.

    `l1` of RGB in [0, 1]; `steady`, of the frame-to-frame change against the truth's; `restless`,
    the frame-to-frame change itself relative to bicubic's; `perceptual`, the training's own.
    """
    totals: Scores = {}
    count = 0
    for given in samples:
        sample = _on(given, device)
        count += 1
        plain = enlarged(sample.frames)
        results = {
            "bicubic": plain,
            "single": torch.cat([model(frame) for frame in sample.frames.split(1)]),
            "alone": model(sample.frames),
            "referred": model(sample.frames, sample.reference),
        }
        for name, unlimited in results.items():
            image = unlimited.clamp(0, 1)
            difference = image - sample.truth
            scores = {
                "l1": difference.abs().mean(),
                "steady": difference.diff(dim=0).abs().mean(),
                "restless": image.diff(dim=0).abs().mean() / plain.diff(dim=0).abs().mean(),
            }
            if perceptual is not None:
                scores["perceptual"] = perceptual.distance(image, sample.truth).mean()
            into = totals.setdefault(name, {})
            for metric, value in scores.items():
                into[metric] = into.get(metric, 0.0) + float(value)
    return {
        name: {metric: round(value / count, 5) for metric, value in metrics.items()}
        for name, metrics in totals.items()
    }


def _charbonnier(difference: Tensor) -> Tensor:
    return torch.sqrt(difference.float().square() + CHARBONNIER**2).mean()


def _set_up(
    config: SRConfig,
    options: SRRunOptions,
    *,
    start_from: Path | None,
    perceptual: PerceptualLoss | None,
) -> _Run:
    device = torch.device(options.device)
    torch.manual_seed(config.seed)
    model = CompactSR(config.model)
    if start_from is not None:
        state = load_network(CompactSR, start_from, part=ARCHITECTURE).state_dict()
        model.load_state_dict(state)
    channels_last(model.to(device))
    return _Run(
        config=config,
        options=options,
        model=model,
        average=Average(model, decay=config.average),
        optimizer=torch.optim.Adam(model.parameters(), lr=config.lr, betas=BETAS),
        perceptual=perceptual.to(device) if perceptual is not None else None,
        device=device,
    )


def _batches_to_come(run: _Run, runs: Runs, *, people: list[str]) -> Iterator[list[SRSample]]:
    """Batches from the run's step on."""
    config = run.config
    dataset = RunDataset(
        runs,
        people=people,
        length=config.steps * config.batch,
        seed=config.seed,
        patch=config.patch,
        frames=config.frames,
        with_reference=config.with_reference,
    )
    numbers = [
        list(range(step * config.batch, (step + 1) * config.batch))
        for step in range(run.step, config.steps)
    ]
    return iter(
        DataLoader(
            dataset,
            batch_sampler=numbers,
            num_workers=run.options.workers,
            collate_fn=list,
            # The loader draws from it; the run's own stays untouched.
            generator=torch.Generator().manual_seed(config.seed),
        )
    )


def _on(sample: SRSample, device: torch.device) -> SRSample:
    reference = sample.reference
    if reference is not None:
        reference = Reference(reference.image.to(device), reference.valid.to(device))
    return SRSample(sample.frames.to(device), sample.truth.to(device), reference)


def _save(run: _Run, output: Path, settings: dict[str, Any]) -> None:
    run.trained.save(output / CHECKPOINT, step=run.step, best=math.inf, config=settings)
    notes = {"training": json.dumps({"step": run.step, "batch": run.config.batch})}
    network = {ARCHITECTURE: run.average.network}
    path = output / "last.safetensors"
    save_networks(path, network, architecture=ARCHITECTURE, notes=notes)


def _log(output: Path, record: dict[str, Any]) -> None:
    with (output / LOG).open("a") as file:
        file.write(json.dumps(record) + "\n")


def _card_of(
    run: _Run, *, data: Path, runs: Runs, kept: list[str], seconds: float, scores: Scores
) -> dict[str, Any]:
    """What is to be known about the run and the weights it made."""
    on_gpu = run.device.type == "cuda"
    return {
        "architecture": ARCHITECTURE,
        "step": run.step,
        "samples": run.step * run.config.batch,
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name(run.device) if on_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "precision": "bf16" if run.options.bf16 else "fp32",
        "torch": torch.__version__,
        "data": {
            "folder": data.name,
            "pictures": len(runs.images),
            "runs": len(runs.starts),
            "clips": len(runs.clips),
            "people": len(run_people(runs)),
            "held_out": kept,
        },
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "perceptual_loss": run.perceptual is not None,
        "config": asdict(run.config),
        "held_out": scores,
    }
