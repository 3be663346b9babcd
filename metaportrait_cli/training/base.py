"""`train base`: the compact warping and refinement networks, from prepared data to weights.

One loop: draw, render, losses, step; now and then judge on held-out people and save. A run lives
in one folder (`state.pt` to go on from, `best.safetensors` and `last.safetensors` with averaged
weights, `log.jsonl`, `card.json`) and continues there when it is started again.

On one GPU, in pieces of ten minutes (prepared data of at most 60 MB travels along):

    metaportrait prepare DATA -o prepared
    metaportrait train base prepared -o run --features mobilenet_v2-b0353104.pth --minutes 10

and the second line again until the steps are done; on several GPUs of one machine the same under
`torchrun --standalone --nproc-per-node N --no-python metaportrait train base …`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaportrait_cli.networks.compact import Motion, Picture
from metaportrait_cli.networks.discriminator import Judgement
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.training.config import BaseConfig, RunOptions, StepReport
from metaportrait_cli.training.data.pairs import Faces, held_out_samples, is_held_out
from metaportrait_cli.training.held_out import Batch, embedding
from metaportrait_cli.training.losses import (
    discriminator_loss,
    generator_terms,
    identity_term,
    reconstruction_terms,
    warping_terms,
)
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.run import (
    Run,
    Sums,
    batches_to_come,
    card_of,
    judge_now,
    log,
    precision,
    save,
    seconds_so_far,
    set_up,
    time_is_up,
)
from metaportrait_cli.training.schedule import rate_share
from metaportrait_cli.training.state import CARD, CHECKPOINT, write_card

PLATEAU = 0.6
"""Share of the steps at full learning rate."""


def train_base(
    config: BaseConfig,
    data: Path,
    output: Path,
    *,
    options: RunOptions,
    start_from: Path | None = None,
    perceptual: PerceptualLoss | None = None,
    identity: IdentityNetwork | None = None,
    on_report: Callable[[StepReport], None] = lambda _report: None,
    on_judged: Callable[[int, dict[str, dict[str, float]]], None] = lambda _step, _scores: None,
) -> dict[str, Any]:
    """Trains, or goes on training, in the folder `output`; returns the run card.

    `start_from` gives a new run the weights of an earlier one, whatever its picture size. Without
    `perceptual` pixels alone are compared. Raises `TrainingError` with the step's number
    once a loss or gradient is not finite; the last checkpoint stays as it was.
    """
    run = set_up(config, options, start_from=start_from, perceptual=perceptual, identity=identity)
    output.mkdir(parents=True, exist_ok=True)
    settings = asdict(config)
    if (output / CHECKPOINT).is_file():
        run.step, run.best = run.trained.restore(output / CHECKPOINT, config=settings)
    faces = Faces.load(data)
    people = sorted({clip.identity for clip in faces.clips})
    kept = [person for person in people if is_held_out(person, share=config.held_out)]
    judged = held_out_samples(faces, people=kept, most=options.judge_samples)
    samples = batches_to_come(run, faces, people=sorted(set(people) - set(kept)))

    started = saved = reported = time.monotonic()
    first_step, seconds_before = run.step, seconds_so_far(output)
    sums = Sums(run.device)
    scores: dict[str, dict[str, float]] = {}
    last = min(config.steps, options.stop_at or config.steps)
    while run.step < last and not time_is_up(run, started):
        batch = Batch.of(next(samples), run.device, size=config.model.image_size)
        terms = train_step(run, batch)
        run.step += 1
        run.average.update(run.model, run.step)
        sums.add(terms, run.step)

        if run.step % options.log_every == 0 or run.step == last:
            means = sums.means()  # raises if a number was not finite
            now = time.monotonic()
            spent = (now - reported) / sums.count
            report = StepReport(run.step, means, round(spent, 4))
            sums, reported = Sums(run.device), now
            log(run, output, asdict(report))
            on_report(report)
        due = run.step % options.judge_every == 0 or run.step == config.steps
        if due and judged and run.rank == 0:
            scores = judge_now(run, judged, output)
            on_judged(run.step, scores)
            reported = time.monotonic()
        if time.monotonic() - saved > 60 * options.save_minutes:
            sums.check()
            save(run, output, settings)
            saved = time.monotonic()

    sums.check()
    if run.step > first_step:
        save(run, output, settings)
    seconds = seconds_before + time.monotonic() - started
    card = card_of(run, data=data, faces=faces, kept=kept, seconds=seconds, scores=scores)
    if run.rank == 0:
        write_card(output / CARD, card)
    return card


def train_step(run: Run, batch: Batch) -> dict[str, Tensor]:
    """One step of model and, in its time, discriminator; returns the weighted terms."""
    config = run.config
    share = rate_share(run.step, steps=config.steps, warm_up=config.warm_up, plateau=PLATEAU)
    for optimizer in (run.optimizer, run.discriminator_optimizer):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * share
    known = embedding(batch, run.identity, config.model.identity_dim)
    with precision(run):
        picture, motion = run.render(batch, known)
        terms = _paired_terms(run, batch, picture, motion)
        if run.identity is not None:
            term = identity_term(run.identity, picture.image, batch.chip, known)
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


def _paired_terms(run: Run, batch: Batch, picture: Picture, motion: Motion) -> dict[str, Tensor]:
    """The weighted terms that compare with the target."""
    config = run.config
    common: dict[str, Any] = {
        "prior": batch.driving.flow,
        "teacher": batch.teacher,
        "trust": batch.trust,
        "target": batch.target,
        "paired": batch.paired,
        "perceptual": run.perceptual,
        "weights": config.weights,
    }
    if config.stage == "warp":
        return warping_terms(picture, motion, **common)
    terms = reconstruction_terms(
        picture, motion, mouth=batch.mouth, eyes=batch.eyes, points=batch.points, **common
    )
    if run.step < config.mask_from * config.steps:
        del terms["mask"]
    return terms


def _discriminator_step(run: Run, image: Tensor, target: Tensor) -> Tensor:
    run.discriminator.requires_grad_(True)
    with precision(run):
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
