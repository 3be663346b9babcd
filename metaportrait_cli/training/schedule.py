"""The learning rate over a training."""

from __future__ import annotations

import math

FINAL_SHARE = 0.05


def rate_share(step: int, *, steps: int, warm_up: int, plateau: float = 0.0) -> float:
    """Share of the learning rate at a step: linear warm-up, `plateau` (a share of the steps) at
    full rate, and half a cosine down to `FINAL_SHARE` over the rest."""
    warm = min(1.0, (step + 1) / max(warm_up, 1))
    phase = max(step / steps - plateau, 0.0) / (1 - plateau)
    cosine = (1 + math.cos(math.pi * min(phase, 1.0))) / 2
    return warm * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)
