"""How far heads turn: as far as a source's pictures bear it, and less far where they exaggerate."""

from __future__ import annotations

from typing import Final

import numpy as np

from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.motion.alignment import Floats

TURN_LIMITS: Final = np.radians([35.0, 25.0, 35.0]).astype(np.float32)
"""Yaw, pitch and roll beyond the source views' range up to which a source can be turned."""

EXAGGERATED_LIMITS: Final = np.radians([20.0, 15.0, 20.0]).astype(np.float32)
"""The same for what is more than the driver's own motion: beyond, heads tear."""

EXAGGERATION: Final = np.radians([12.0, 28.0]).astype(np.float32)
"""Turned away by the first of these angles a face is exaggerated as asked for, by the second not
at all: twice as wide, a mouth tears a cheek seen from the side, and opens into the nose."""

KNEE: Final = 0.7
"""Share of a limit up to which motion passes unchanged."""


def supported(angles: Floats, views: Floats, limits: Floats = TURN_LIMITS) -> Floats:
    """Angles (T, 3) brought softly into the range that the source's views (V, 3) support."""
    inside = np.clip(angles, views.min(0), views.max(0))
    beyond = angles - inside
    return inside + np.sign(beyond) * soft(np.abs(beyond), limits)


def exaggerated(asked: Floats, plain: Floats, views: Floats) -> Floats:
    """Angles (T, 3) asked for, as `supported`, that may be more than the driver's `plain` ones.

    Where the driver's own go further than exaggerated ones may, they are shown.
    """
    own, held = supported(plain, views), supported(asked, views, EXAGGERATED_LIMITS)
    own_beyond, beyond = (
        np.abs(each - np.clip(each, views.min(0), views.max(0))) for each in (own, held)
    )
    return np.where(beyond >= own_beyond, held, own)


def eased(strength: float, angles: Floats) -> Floats:
    """Share (T,) of what is more than the driver's own expression, for heads at angles (T, 3)."""
    if strength <= 1:
        return np.ones(len(angles), np.float32)
    low, high = EXAGGERATION
    return 1 - smoothstep((np.hypot(angles[:, 0], angles[:, 1]) - low) / (high - low))


def soft(amount: Floats, limit: Floats) -> Floats:
    """Passes non-negative amounts up to KNEE * limit, then approaches the limit smoothly."""
    knee, room = KNEE * limit, (1 - KNEE) * limit
    over = np.maximum(amount - knee, 0)
    return np.minimum(amount, knee) + room * np.tanh(over / room)
