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


def nominal_rate(times: Sequence[Fraction]) -> Fraction:
    """Frames per second that unevenly spaced, ascending `times` (seconds, at least two) stand for.

    That of the shorter intervals, which frames that were dropped or held don't change: a phone's
    clip is one of 30 a second, whatever their mean. A common rate where one is near.
    """
    intervals = sorted(after - before for before, after in pairwise(times) if after > before)
    if not intervals:
        return USUAL_RATE
    short = intervals[len(intervals) // 4]  # a few may be shorter by a fault
    alike = [each for each in intervals if abs(each - short) <= short / 4]
    rate = len(alike) / sum(alike, Fraction(0))
    nearest = min(USUAL_RATES, key=lambda known: abs(known - rate))
    if abs(nearest - rate) <= rate / 50 or rate > USUAL_RATES[-1]:
        return nearest
    return _rounded(rate)


def _rounded(rate: Fraction) -> Fraction:
    return max(rate.limit_denominator(LARGEST_DENOMINATOR), LOWEST_RATE)
