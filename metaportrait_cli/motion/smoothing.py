"""Steadies fitted parameters over time without delaying or flattening what really moves.

Every filter is a bilateral kernel: neighbours in time count the less, the more their (lightly
averaged) value differs from the present one. A face at rest is averaged over the whole kernel;
a blink, a closing lip or a turning head keeps its shape and its time, because frames before and
after it don't count. Kernels are symmetric in time, hence zero phase, and of finite support:
a frame's result depends on `half_width(fps)` frames either side and on nothing else, so a clip may
be filtered in windows that overlap by that much with the same result as in one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.motion.alignment import Floats, rotation_of
from metaportrait_cli.motion.features import FEATURES, legible_axes
from metaportrait_cli.motion.fitting import FaceParameters
from metaportrait_cli.motion.morphable import MorphableModel

POSE_SECONDS: Final = 0.1
"""Standard deviation in time of the kernels for what should be still: head and camera.

With 0.16 a nodding head strays half again as far from where it is, for 3 % less jitter at rest (13
training clips)."""

FACE_SECONDS: Final = 0.08
"""The same for expression and gaze. A blink takes about 0.2 s.

On 44 training clips these settings keep 85 of 88 blinks and 154 of 172 lip contacts, and bring the
jitter at rest from 9.9 to 3.7 thousandths of the inter-ocular distance.
"""

SUPPORT: Final = 2.5
"""Kernels end at this many standard deviations."""

TURN_RANGE: Final = 0.03
"""Radians of head rotation that count as a real turn rather than noise."""

SHIFT_RANGE: Final = 0.04
"""The same for translation, in inter-ocular distances."""

SCALE_RANGE: Final = 0.1
"""The same for the relative size: wide, for a face hardly ever changes its size quickly."""

GAZE_RANGE: Final = 0.08
"""The same for gaze, in half eye widths; a saccade is larger."""

FEATURE_RANGE: Final = 1.2
"""The same for a feature of the expression, see `motion.features`, in units of its jitter.

The lips' peak of a syllable lasts two or three frames and must keep its height: on 23 training
clips 97 % of it is left, in one of ten peaks less than 93 % (91 and 75 % with a range of 2 for each
coefficient), for 8.1 instead of 7.6 thousandths of jitter.
"""

OTHER_RANGE: Final = 2.0
"""The same for what the features leave of the expression."""

GUIDE: Final = (0.25, 0.5, 0.25)
"""Average over time before values are compared, so that noise itself isn't taken for motion."""

SUDDEN: Final = (0.7, 1.0)
"""Difference from that average, in units of motion, that is motion by itself: of a feature, and of
what the features leave."""


def half_width(fps: float) -> int:
    """Frames on either side that a smoothed frame depends on."""
    return _reach(POSE_SECONDS, fps) + len(GUIDE) // 2


@dataclass(frozen=True)
class Window:
    """Frames to read, start to stop, of which keep (relative to start) get a final result."""

    start: int
    stop: int
    keep: slice


def windows(length: int, *, size: int, overlap: int) -> Iterator[Window]:
    """Splits a clip into windows that keep `size` frames and read `overlap` more on either side."""
    for first in range(0, length, size):
        start, stop = max(0, first - overlap), min(length, first + size + overlap)
        yield Window(start, stop, slice(first - start, min(first + size, length) - start))


def smooth(
    model: MorphableModel, parameters: FaceParameters, *, fps: float, cuts: Sequence[int] = ()
) -> FaceParameters:
    """Steady parameters; T in, T out.

    `cuts` lists the first frame of every new shot (relative to these parameters): nothing is
    averaged across it.
    """
    p = parameters
    shot = np.searchsorted(np.sort(np.asarray(cuts, int)), np.arange(len(p)), side="right")
    pose_reach, face_reach = _reach(POSE_SECONDS, fps), _reach(FACE_SECONDS, fps)
    pose_sigma, face_sigma = POSE_SECONDS * fps, FACE_SECONDS * fps

    def still(values: Floats, limits: Floats | float) -> Floats:
        guide = _guide(values, shot) / limits
        return _bilateral(values, guide, shot, pose_reach, pose_sigma)

    # Angles can't jump: a face whose landmarks are found is turned by less than a quarter circle.
    angles = still(p.angles, TURN_RANGE)
    translation = still(p.translation, SHIFT_RANGE * p.scale[:, None])
    scale = np.exp(still(np.log(p.scale)[:, None], SCALE_RANGE))[:, 0]

    axes = legible_axes(model)
    parts = [len(FEATURES), len(axes) - len(FEATURES)]
    ranges, sudden = (np.repeat(two, parts) for two in ((FEATURE_RANGE, OTHER_RANGE), SUDDEN))
    moves = (p.expression / model.expression_jitter) @ axes.T
    changes = (moves / ranges).astype(np.float32)
    average = _guide(changes, shot)
    # A blink may last one frame: what stands out of its neighbours this far is no noise.
    movements = np.where(np.abs(changes - average) > sudden, changes, average)
    steady = _bilateral(moves, movements, shot, face_reach, face_sigma)
    expression = (steady @ axes * model.expression_jitter).astype(np.float32)
    looks = p.gaze.reshape(len(p), -1)
    gaze = _bilateral(looks, _guide(looks, shot) / GAZE_RANGE, shot, face_reach, face_sigma)
    details = p.residual.reshape(len(p), -1)
    residual = _bilateral(details, movements, shot, face_reach, face_sigma, joint=True)
    return replace(
        p,
        expression=expression,
        gaze=gaze.reshape(p.gaze.shape),
        rotation=rotation_of(angles),
        scale=scale,
        translation=translation,
        residual=residual.reshape(p.residual.shape),
    )


def _reach(seconds: float, fps: float) -> int:
    return max(1, ceil(SUPPORT * seconds * fps))


def _pairs(length: int, lag: int) -> tuple[slice, slice]:
    """Slices of frames and of the frames `lag` later, where both exist."""
    return slice(max(0, -lag), min(length, length - lag)), slice(
        max(0, lag), min(length, length + lag)
    )


def _guide(values: Floats, shot: NDArray[np.intp]) -> Floats:
    """Values (T, C) averaged over three frames of one shot."""
    total = np.full((len(values), 1), GUIDE[1], np.float32)
    summed = values * GUIDE[1]
    for lag, share in ((-1, GUIDE[0]), (1, GUIDE[2])):
        here, there = _pairs(len(values), lag)
        weight = share * (shot[here] == shot[there]).astype(np.float32)[:, None]
        summed[here] += weight * values[there]
        total[here] += weight
    return summed / total


def _bilateral(
    values: Floats,
    guide: Floats,
    shot: NDArray[np.intp],
    reach: int,
    sigma: float,
    *,
    joint: bool = False,
) -> Floats:
    """Weighted averages of values (T, C) over `reach` frames either side.

    guide (T, C) is compared between frames, in units that count as motion. With `joint` the guide
    (T, D) as a whole decides for all columns; otherwise each column decides for itself.
    """
    total = np.zeros((len(values), 1 if joint else values.shape[1]), np.float32)
    summed = np.zeros_like(values)
    for lag in range(-reach, reach + 1):
        here, there = _pairs(len(values), lag)
        if here.start >= here.stop:
            continue
        distance = (guide[here] - guide[there]) ** 2
        if joint:
            distance = distance.max(axis=1, keepdims=True)
        weight = np.exp(-0.5 * (distance + (lag / sigma) ** 2))
        weight *= (shot[here] == shot[there])[:, None]
        summed[here] += weight * values[there]
        total[here] += weight
    return summed / total
