"""Frame rates out of timestamps. Pure, and exact: seconds and rates are Fractions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

JITTER = Fraction(1, 400)
"""Seconds by which the times of a constant rate may wander: some tools round to milliseconds."""
LARGEST_DENOMINATOR = 1001
"""Keeps 30000/1001 exact, and leaves an error below 0.01 ms an hour in any other rate."""
USUAL_RATES = tuple(
    sorted(
        [Fraction(n) for n in (24, 25, 30, 48, 50, 60, 100, 120)]
        + [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]
    )
)


HIGHEST_RATE, LOWEST_RATE = Fraction(1000), Fraction(1, LARGEST_DENOMINATOR)
"""Frames a second beyond which times are wrong, or of no use to motion."""
USUAL_RATE = Fraction(25)


def is_variable(times: Sequence[Fraction], *, tick: Fraction) -> bool:
    """Whether ascending `times` (seconds, counted in ticks of `tick`) are unevenly spaced."""
    intervals = [after - before for before, after in pairwise(times)]
    return bool(intervals) and max(intervals) - min(intervals) > max(2 * tick, JITTER)


def constant_rate(
    times: Sequence[Fraction], *, tick: Fraction, declared: Iterable[Fraction | None]
) -> Fraction:
    """Frames per second of evenly spaced, ascending `times` (seconds, at least one).

    Of the `declared` and then the usual rates the first that meets the last time from the first;
    the measured one if none does.
    """
    candidates = [rate for rate in declared if rate and LOWEST_RATE <= rate <= HIGHEST_RATE]
    steps, span = len(times) - 1, times[-1] - times[0]
    if span <= 0 or steps / span > HIGHEST_RATE:
        return _rounded(next(iter(candidates), USUAL_RATE))
    for rate in (*candidates, *USUAL_RATES):
        if abs(span - steps / rate) <= max(2 * tick, JITTER):
            return _rounded(rate)
    return _rounded(steps / span)


def average_rate(
    times: Sequence[Fraction], *, frames: int | None, duration: Fraction | None
) -> Fraction:
    """Frames per second of unevenly spaced, ascending `times` (seconds, at least two).

    By the declared count and duration where both are known, since only they count the time for
    which the last frame is shown.
    """
    span = times[-1] - times[0]
    measured = (len(times) - 1) / span if span > 0 else USUAL_RATE
    rate = frames / duration if frames and duration and duration > 0 else measured
    if rate > HIGHEST_RATE:
        rate = measured if measured <= HIGHEST_RATE else USUAL_RATE
    return _rounded(rate)


def _rounded(rate: Fraction) -> Fraction:
    return max(rate.limit_denominator(LARGEST_DENOMINATOR), LOWEST_RATE)
