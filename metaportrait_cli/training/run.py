"""The machinery around the training loop: what a run consists of, samples, sums, saving."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from metaportrait_cli.errors import TrainingError
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.compact import CompactModel, Motion, Picture, WarpingNetwork
from metaportrait_cli.networks.compact_blocks import channels_last, enlarge, warp
from metaportrait_cli.networks.discriminator import MultiScaleDiscriminator
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.training.config import BaseConfig, RunOptions, Stage
from metaportrait_cli.training.data.pairs import Faces, PairDataset, Sample
from metaportrait_cli.training.held_out import Batch, judge
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.state import CARD, CHECKPOINT, LOG, Average, Trained
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network, read_header, save_networks

ARCHITECTURE = "compact"
BETAS = (0.5, 0.999)  # the paper's training code


@dataclass
class Run:
    """What the loop works on."""

    config: BaseConfig
    options: RunOptions
    model: CompactModel
    discriminator: MultiScaleDiscriminator
    average: Average[CompactModel]
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
        share = self.config.adversarial_from if self.config.stage == "all" else 1.0
        return math.ceil(share * self.config.steps)

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


class Rendering(nn.Module):
    """Encoding and driving as one call, so that DDP and the compiler see the whole."""

    def __init__(self, model: CompactModel, *, stage: Stage) -> None:
        super().__init__()
        self.model = model
        self._render = self._all if stage == "all" else self._warp

    def forward(self, batch: Batch, known: Tensor) -> tuple[Picture, Motion]:
        return self._render(batch, known)

    def _all(self, batch: Batch, known: Tensor) -> tuple[Picture, Motion]:
        return self.model(self.model.encode(batch.source, batch.source_lines, known), batch.driving)

    def _warp(self, batch: Batch, _known: Tensor) -> tuple[Picture, Motion]:
        warping = self.model.warping
        motion = warping(warping.encode(batch.source, batch.source_lines), batch.driving)
        warped = warp(batch.source, enlarge(motion.flow, batch.source.shape[-1]))
        nothing = torch.zeros_like(warped[:, :1])
        return Picture(image=warped, warped=warped, painted=warped, mask=nothing), motion


class Sums:
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


def set_up(
    config: BaseConfig,
    options: RunOptions,
    *,
    start_from: Path | None,
    perceptual: PerceptualLoss | None,
    identity: IdentityNetwork | None,
) -> Run:
    """Networks and optimisers on their device; under `torchrun` one process of several."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device(options.device)
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if world > 1 and device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.manual_seed(config.seed)
    model = CompactModel(config.model)
    if start_from is not None:
        _start(model, start_from)
    channels_last(model.to(device))
    if config.stage == "warp":
        model.requires_grad_(False)
        model.warping.requires_grad_(True)
    discriminator = channels_last(MultiScaleDiscriminator(config.discriminator).to(device))
    average = Average(model, decay=config.average)
    render: nn.Module = Rendering(model, stage=config.stage)
    patches: nn.Module = discriminator
    if options.compile:
        render.compile()
        patches.compile()
    if world > 1:
        render = nn.parallel.DistributedDataParallel(render)
        patches = nn.parallel.DistributedDataParallel(patches)
    return Run(
        config=config,
        options=options,
        model=model,
        discriminator=discriminator,
        average=average,
        optimizer=torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad], lr=config.lr, betas=BETAS
        ),
        discriminator_optimizer=torch.optim.Adam(
            discriminator.parameters(), lr=config.lr, betas=BETAS
        ),
        render=render,
        judge_patches=patches,
        perceptual=perceptual.to(device) if perceptual is not None else None,
        identity=identity.to(device, torch.float32).requires_grad_(False)
        if identity is not None and config.stage == "all"
        else None,
        device=device,
        rank=rank,
        world=world,
    )


def _start(model: CompactModel, weights: Path) -> None:
    """Takes over what an earlier run made, the whole model or its warping network alone."""
    if ARCHITECTURE in read_header(weights).configs:
        whole = load_network(CompactModel, weights, part=ARCHITECTURE)
        model.load_state_dict(whole.state_dict())
    else:
        warping = load_network(WarpingNetwork, weights, part="warping")
        model.warping.load_state_dict(warping.state_dict())


def batches_to_come(run: Run, faces: Faces, *, people: list[str]) -> Iterator[Sample]:
    """Batches from the run's step on."""
    config, options = run.config, run.options
    of_a_step = config.batch * run.world
    # A photo moved by the prior has the prior's errors, which a flow is to unlearn; and nothing
    # tells how a flow across identities should be.
    real_only = config.stage == "warp"
    dataset = PairDataset(
        faces,
        morphable=MorphableModel.load(bundled_path("morphable")),
        people=people,
        length=config.steps * of_a_step,
        seed=config.seed,
        photo=0.0 if real_only else config.photo,
        cross=0.0 if real_only else config.cross,
        cross_from=0 if run.identity is not None else run.adversarial_step * of_a_step,
    )
    first = run.rank * config.batch
    numbers = [
        list(range(step * of_a_step + first, step * of_a_step + first + config.batch))
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


def precision(run: Run) -> Any:
    """Autocast, if the run is in mixed precision."""
    if run.options.bf16:
        return torch.autocast(run.device.type, torch.bfloat16)
    return nullcontext()


def time_is_up(run: Run, started: float) -> bool:
    """Whether the run's minutes have passed since `started`; all processes agree."""
    up = time.monotonic() - started >= 60 * run.options.minutes
    if run.world == 1 or math.isinf(run.options.minutes):
        return up
    # The first process decides, or one would wait for ever for another's gradients.
    decision = torch.tensor(float(up), device=run.device)
    torch.distributed.broadcast(decision, src=0)
    return bool(decision)


def judge_now(run: Run, samples: list[Sample], output: Path) -> dict[str, dict[str, float]]:
    """Scores of the averaged model; keeps its weights if they are the best so far."""
    model = run.average.network
    scores = judge(
        model,
        samples,
        device=run.device,
        perceptual=run.perceptual,
        identity=run.identity,
    )
    log(run, output, {"step": run.step, "held_out": scores})
    score = scores["model"]["l1"] + scores["model"].get("perceptual", 0.0)
    if score < run.best:
        run.best = score
        _save_weights(run, output / "best.safetensors")
    return scores


def save(run: Run, output: Path, settings: dict[str, Any]) -> None:
    """Checkpoint and averaged weights, by the first process."""
    if run.rank == 0:
        run.trained.save(output / CHECKPOINT, step=run.step, best=run.best, config=settings)
        _save_weights(run, output / "last.safetensors")


def _save_weights(run: Run, path: Path) -> None:
    notes = {
        "training": json.dumps({"step": run.step, "batch": run.config.batch * run.world}),
        "identity": str(int(run.identity is not None)),
    }
    whole = run.average.network
    parts = {"warping": whole.warping} if run.config.stage == "warp" else {ARCHITECTURE: whole}
    save_networks(path, parts, architecture=ARCHITECTURE, notes=notes)


def log(run: Run, output: Path, record: dict[str, Any]) -> None:
    """Appends a line to the run's log."""
    if run.rank == 0:
        with (output / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")


def seconds_so_far(output: Path) -> float:
    """What earlier pieces of the run took."""
    try:
        return float(json.loads((output / CARD).read_text())["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0


def card_of(
    run: Run,
    *,
    data: Path,
    faces: Faces,
    kept: list[str],
    seconds: float,
    scores: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """What is to be known about the run and the weights it made."""
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
