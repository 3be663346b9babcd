"""`train base`: the compact warping and refinement networks, from prepared data to weights.

One loop: draw, render, losses, step; now and then judge on held-out people and save. A run lives
in one folder (`state.pt` to go on from, `best.safetensors` and `last.safetensors` with averaged
weights, `log.jsonl`, `card.json`) and continues there when it is started again.

On one GPU, in pieces of ten minutes (prepared data of at most 60 MB travels along):

    metaportrait prepare DATA -o prepared
    metaportrait train base prepared -o run --features mobilenet_v2-b0353104.pth --minutes 10

and the second line again until the steps are done; on several GPUs of one machine the same under
`torchrun --standalone --nproc-per-node N -m metaportrait_cli.cli.app`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from metaportrait_cli.errors import TrainingError
from metaportrait_cli.networks.compact import CompactConfig, CompactModel, Motion, Picture
from metaportrait_cli.networks.discriminator import (
    DiscriminatorConfig,
    Judgement,
    MultiScaleDiscriminator,
)
from metaportrait_cli.training.dataset import (
    Faces,
    PairDataset,
    Sample,
    held_out_samples,
    is_held_out,
)
from metaportrait_cli.training.held_out import Batch, embedding, judge
from metaportrait_cli.training.losses import (
    IdentityNetwork,
    LossWeights,
    discriminator_loss,
    generator_terms,
    identity_term,
    reconstruction_terms,
)
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.state import CARD, CHECKPOINT, LOG, Average, Trained, write_card
from metaportrait_cli.weights.store import save_networks

ARCHITECTURE = "compact"
BETAS = (0.5, 0.999)  # the paper's training code
FINAL_LR = 0.05
COOL_DOWN_FROM = 0.6


@dataclass(frozen=True)
class BaseConfig:
    """What is trained and how; a run can only be continued with the same."""

    model: CompactConfig = CompactConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig(widths=(32, 64, 128, 256), scales=2)
    weights: LossWeights = LossWeights()
    steps: int = 40_000
    batch: int = 16
    """Samples a step and process."""
    lr: float = 2e-4
    warm_up: int = 500
    clip_norm: float = 1.0
    adversarial_from: float = 0.6
    """Share of the steps after which the discriminator joins; 1 leaves it out."""
    photo: float = 0.2
    """Share of samples made from photos."""
    cross: float = 0.2
    """Share of cross-identity samples, once a term judges them (identity or adversarial)."""
    held_out: float = 0.05
    """Share of the people that is kept for judging."""
    average: float = 0.999
    seed: int = 0


@dataclass(frozen=True)
class RunOptions:
    """Where and how long; no influence on what a step does."""

    device: str = "cpu"
    bf16: bool = False
    """Mixed precision; on a CPU it needs AVX512-BF16 or AMX to be faster."""
    compile: bool = False
    workers: int = 0
    """Processes that make samples; 0 makes them in the loop."""
    minutes: float = math.inf
    """Stop, resumable, after this time."""
    stop_at: int | None = None
    """Stop, resumable, after this step."""
    log_every: int = 20
    judge_every: int = 1000
    judge_samples: int = 96
    save_minutes: float = 5.0


@dataclass(frozen=True)
class StepReport:
    """Means over the steps since the last report."""

    step: int
    terms: dict[str, float]
    seconds_per_step: float


@dataclass
class _Run:
    """What the loop works on."""

    config: BaseConfig
    options: RunOptions
    model: CompactModel
    discriminator: MultiScaleDiscriminator
    average: Average
    optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    render: nn.Module
    judge_patches: nn.Module
    perceptual: PerceptualLoss | None
    identity: IdentityNetwork | None
    device: torch.device
    rank: int = 0
    world: int = 1
    step: int = 0
    best: float = math.inf
    trained: Trained = field(init=False)

    @property
    def adversarial_step(self) -> int:
        return math.ceil(self.config.adversarial_from * self.config.steps)

    def __post_init__(self) -> None:
        self.trained = Trained(
            {
                "model": self.model,
                "average": self.average.network,
                "discriminator": self.discriminator,
                "optimizer": self.optimizer,
                "discriminator_optimizer": self.discriminator_optimizer,
            }
        )


def train_base(
    config: BaseConfig,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    perceptual: PerceptualLoss | None = None,
    identity: IdentityNetwork | None = None,
    on_report: Callable[[StepReport], None] = lambda _report: None,
    on_judged: Callable[[int, dict[str, dict[str, float]]], None] = lambda _step, _scores: None,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    Without `perceptual` pixels alone are compared. Raises `TrainingError` with the step's number
    once a loss or gradient is not finite; the last checkpoint stays as it was.
    """
    run = _set_up(config, options, perceptual=perceptual, identity=identity)
    output.mkdir(parents=True, exist_ok=True)
    settings = asdict(config)
    if (output / CHECKPOINT).is_file():
        run.step, run.best = run.trained.restore(output / CHECKPOINT, config=settings)
    faces = Faces.load(data)
    people = sorted({clip.identity for clip in faces.clips})
    kept = [person for person in people if is_held_out(person, share=config.held_out)]
    judged = held_out_samples(faces, people=kept, most=options.judge_samples)
    samples = _samples(run, faces, people=sorted(set(people) - set(kept)))

    started = saved = reported = time.monotonic()
    first_step, seconds_before = run.step, _seconds_so_far(output)
    sums = _Sums(run.device)
    scores: dict[str, dict[str, float]] = {}
    last = min(config.steps, options.stop_at or config.steps)
    while run.step < last and not _time_is_up(run, started):
        batch = Batch.of(next(samples), run.device)
        terms = train_step(run, batch)
        run.step += 1
        run.average.update(run.model, run.step)
        sums.add(terms, run.step)

        if run.step % options.log_every == 0 or run.step == last:
            means = sums.means()  # raises if a number was not finite
            now = time.monotonic()
            spent = (now - reported) / sums.count
            report = StepReport(run.step, means, round(spent, 4))
            sums, reported = _Sums(run.device), now
            _log(run, output, asdict(report))
            on_report(report)
        if run.step % options.judge_every == 0 and judged and run.rank == 0:
            scores = _judge(run, judged, output)
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
    card = _card(run, data=data, faces=faces, kept=kept, seconds=seconds, scores=scores)
    if run.rank == 0:
        write_card(output / CARD, card)
    return card


def learning_rate(step: int, config: BaseConfig) -> float:
    """Linear warm-up, a plateau, and half a cosine down to a twentieth over the last part."""
    warm = min(1.0, (step + 1) / config.warm_up) if config.warm_up else 1.0
    done = step / config.steps
    if done <= COOL_DOWN_FROM:
        return config.lr * warm
    phase = (done - COOL_DOWN_FROM) / (1 - COOL_DOWN_FROM)
    cosine = (1 + math.cos(math.pi * min(phase, 1.0))) / 2
    return config.lr * warm * (FINAL_LR + (1 - FINAL_LR) * cosine)


def train_step(run: _Run, batch: Batch) -> dict[str, Tensor]:
    """One step of model and, in its time, discriminator; returns the weighted terms."""
    config = run.config
    for optimizer in (run.optimizer, run.discriminator_optimizer):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run.step, config)
    known = embedding(batch, run.identity, config.model.identity_dim)
    with _precision(run):
        picture, motion = run.render(batch, known)
        terms = reconstruction_terms(
            picture,
            motion,
            prior=batch.driving.flow,
            target=batch.target,
            mouth=batch.mouth,
            eyes=batch.eyes,
            paired=batch.paired,
            perceptual=run.perceptual,
            weights=config.weights,
        )
        if run.identity is not None:
            term = identity_term(run.identity, picture.image, batch.points, known)
            terms["identity"] = config.weights.identity * term
        adversarial = run.step >= run.adversarial_step
        if adversarial:
            run.discriminator.requires_grad_(False)
            with torch.no_grad():
                real = run.discriminator(batch.target)
            fake = run.discriminator(picture.image)
            terms |= generator_terms(fake, real, paired=batch.paired, weights=config.weights)
    total = torch.stack(list(terms.values())).sum()
    run.optimizer.zero_grad(set_to_none=True)
    total.backward()
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), config.clip_norm)
    run.optimizer.step()
    if adversarial:
        terms["discriminator"] = _discriminator_step(run, picture.image.detach(), batch.target)
    return {**terms, "total": total.detach(), "gradient": norm.detach()}


def _discriminator_step(run: _Run, image: Tensor, target: Tensor) -> Tensor:
    run.discriminator.requires_grad_(True)
    with _precision(run):
        # One pass over both: under DDP a module may be called once a step.
        judged = run.judge_patches(torch.cat([image, target]))
        halves = [(_half(scale, 0), _half(scale, 1)) for scale in judged]
        loss = discriminator_loss([fake for fake, _ in halves], [real for _, real in halves])
    run.discriminator_optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.discriminator.parameters(), run.config.clip_norm)
    run.discriminator_optimizer.step()
    return loss.detach()


def _half(judgement: Judgement, which: int) -> Judgement:
    return Judgement(
        features=tuple(feature.chunk(2)[which] for feature in judgement.features),
        logits=judgement.logits.chunk(2)[which],
    )


class _Rendering(nn.Module):
    """Encoding and driving as one call, so that DDP and the compiler see the whole."""

    def __init__(self, model: CompactModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, known: Tensor) -> tuple[Picture, Motion]:
        return self.model(self.model.encode(batch.source, batch.source_lines, known), batch.driving)


class _Sums:
    """Sums of terms on the device: looked at now and then, for looking makes a GPU wait."""

    def __init__(self, device: torch.device) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self._bad_step = torch.full((), -1, device=device)

    def add(self, terms: dict[str, Tensor], step: int) -> None:
        self.count += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        finite = torch.isfinite(terms["total"]) & torch.isfinite(terms["gradient"])
        first = (self._bad_step < 0) & ~finite
        self._bad_step = torch.where(first, step, self._bad_step)

    def check(self) -> None:
        """Raises `TrainingError` if a loss or gradient was not finite, with the first step."""
        step = int(self._bad_step)
        if step >= 0:
            raise TrainingError(
                f"step {step}: the loss or its gradient is not finite; go on from the last"
                " checkpoint with a lower learning rate"
            )

    def means(self) -> dict[str, float]:
        self.check()
        return {name: round(float(value) / self.count, 5) for name, value in self._sums.items()}


def _set_up(
    config: BaseConfig,
    options: RunOptions,
    *,
    perceptual: PerceptualLoss | None,
    identity: IdentityNetwork | None,
) -> _Run:
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device(options.device)
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if world > 1 and device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.manual_seed(config.seed)
    model = CompactModel(config.model).to(device, memory_format=torch.channels_last)
    discriminator = MultiScaleDiscriminator(config.discriminator)
    discriminator.to(device, memory_format=torch.channels_last)
    average = Average(model, decay=config.average)
    render: nn.Module = _Rendering(model)
    patches: nn.Module = discriminator
    if options.compile:
        render, patches = torch.compile(render), torch.compile(patches)
    if world > 1:
        render = nn.parallel.DistributedDataParallel(render)
        patches = nn.parallel.DistributedDataParallel(patches)
    return _Run(
        config=config,
        options=options,
        model=model,
        discriminator=discriminator,
        average=average,
        optimizer=torch.optim.Adam(model.parameters(), lr=config.lr, betas=BETAS),
        discriminator_optimizer=torch.optim.Adam(
            discriminator.parameters(), lr=config.lr, betas=BETAS
        ),
        render=render,
        judge_patches=patches,
        perceptual=perceptual.to(device) if perceptual is not None else None,
        identity=identity,
        device=device,
        rank=rank,
        world=world,
    )


def _samples(run: _Run, faces: Faces, *, people: list[str]) -> Iterator[Sample]:
    """Batches from the run's step on."""
    config, options = run.config, run.options
    of_a_step = config.batch * run.world
    dataset = PairDataset(
        faces,
        people=people,
        length=config.steps * of_a_step,
        seed=config.seed,
        photo=config.photo,
        cross=config.cross,
        cross_from=0 if run.identity is not None else run.adversarial_step * of_a_step,
    )
    first = run.rank * config.batch
    numbers = [
        range(step * of_a_step + first, step * of_a_step + first + config.batch)
        for step in range(run.step, config.steps)
    ]
    return iter(
        DataLoader(
            dataset,
            batch_sampler=numbers,
            num_workers=options.workers,
            pin_memory=run.device.type == "cuda",
            # The loader draws from it; the run's own stays untouched.
            generator=torch.Generator().manual_seed(config.seed),
        )
    )


def _precision(run: _Run) -> Any:
    if run.options.bf16:
        return torch.autocast(run.device.type, torch.bfloat16)
    return nullcontext()


def _time_is_up(run: _Run, started: float) -> bool:
    up = time.monotonic() - started >= 60 * run.options.minutes
    if run.world == 1 or math.isinf(run.options.minutes):
        return up
    # The first process decides, or one would wait for ever for another's gradients.
    decision = torch.tensor(float(up), device=run.device)
    torch.distributed.broadcast(decision, src=0)
    return bool(decision)


def _judge(run: _Run, samples: list[Sample], output: Path) -> dict[str, dict[str, float]]:
    model = run.average.network
    scores = judge(
        model,
        samples,
        device=run.device,
        perceptual=run.perceptual,
        identity=run.identity,
    )
    _log(run, output, {"step": run.step, "held_out": scores})
    score = scores["model"]["l1"] + scores["model"].get("perceptual", 0.0)
    if score < run.best:
        run.best = score
        _save_weights(run, output / "best.safetensors")
    return scores


def _save(run: _Run, output: Path, settings: dict[str, Any]) -> None:
    if run.rank == 0:
        run.trained.save(output / CHECKPOINT, step=run.step, best=run.best, config=settings)
        _save_weights(run, output / "last.safetensors")


def _save_weights(run: _Run, path: Path) -> None:
    notes = {"training": json.dumps({"step": run.step, "batch": run.config.batch * run.world})}
    save_networks(path, {ARCHITECTURE: run.average.network}, architecture=ARCHITECTURE, notes=notes)


def _log(run: _Run, output: Path, record: dict[str, Any]) -> None:
    if run.rank == 0:
        with (output / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")


def _seconds_so_far(output: Path) -> float:
    try:
        return float(json.loads((output / CARD).read_text())["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _card(
    run: _Run,
    *,
    data: Path,
    faces: Faces,
    kept: list[str],
    seconds: float,
    scores: dict[str, dict[str, float]],
) -> dict[str, Any]:
    on_gpu = run.device.type == "cuda"
    return {
        "architecture": ARCHITECTURE,
        "step": run.step,
        "samples": run.step * run.config.batch * run.world,
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name(run.device) if on_gpu else "cpu",
        "processes": run.world,
        "precision": "bf16" if run.options.bf16 else "fp32",
        "torch": torch.__version__,
        "data": {
            "folder": data.name,
            "pictures": len(faces.images),
            "clips": len(faces.clips),
            "people": len({clip.identity for clip in faces.clips}),
            "held_out": kept,
        },
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "perceptual_loss": run.perceptual is not None,
        "identity_loss": run.identity is not None,
        "config": asdict(run.config),
        "held_out": scores,
        "best": run.best if math.isfinite(run.best) else None,
    }
