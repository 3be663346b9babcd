"""Settings of base training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from metaportrait_cli.networks.compact import CompactConfig
from metaportrait_cli.networks.discriminator import DiscriminatorConfig
from metaportrait_cli.training.losses import LossWeights

# A third of the released one's work; two scales, as the paper says.
DISCRIMINATOR = DiscriminatorConfig(widths=(32, 64, 128, 256), scales=2)


Stage = Literal["warp", "all"]


@dataclass(frozen=True)
class BaseConfig:
    """What is trained and how; a run can only be continued with the same."""

    model: CompactConfig = field(default_factory=CompactConfig)
    discriminator: DiscriminatorConfig = field(default_factory=lambda: DISCRIMINATOR)
    weights: LossWeights = field(default_factory=LossWeights)
    stage: Stage = "all"
    """`warp` trains the warping network alone, at a fraction of the cost, to start `all` from."""
    steps: int = 40_000
    batch: int = 16
    """Samples a step and process."""
    lr: float = 2e-4
    warm_up: int = 500
    clip_norm: float = 1.0
    adversarial_from: float = 0.6
    """Share of the steps after which the discriminator joins; 1 leaves it out."""
    mask_from: float = 0.1
    """Share of the steps after which painting costs. Before, nothing worth its price is painted,
    and the mask would close for good."""
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
