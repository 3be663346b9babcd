"""Rates out of timestamps."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaportrait_cli.media.timing import USUAL_RATES, constant_rate, is_variable, nominal_rate


def stamped(rate: Fraction, count: int, tick: Fraction) -> list[Fraction]:
    """Times of `count` frames, rounded to whole ticks as containers do."""
    return [round(index / rate / tick) * tick for index in range(count)]


@given(
    rate=st.sampled_from(USUAL_RATES),
    count=st.integers(200, 2000),
    tick=st.sampled_from([Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 600)]),
)
def test_usual_rates_survive_the_rounding_of_timestamps(
    rate: Fraction, count: int, tick: Fraction
) -> None:
    times = stamped(rate, count, tick)
    assert not is_variable(times, tick=tick)
    found = constant_rate(times, tick=tick, declared=[None, Fraction(1000)])
    # After the clip's length the two rates may not be a frame apart.
    assert abs(found - rate) * times[-1] < Fraction(1, 2)


def test_a_declared_rate_must_meet_the_times() -> None:
    times = stamped(Fraction(30000, 1001), 300, Fraction(1, 90000))
    declared = [Fraction(60), Fraction(30000, 1001)]
    assert constant_rate(times, tick=Fraction(1, 90000), declared=declared) == declared[1]


def test_an_odd_rate_is_measured() -> None:
    times = stamped(Fraction(37, 3), 100, Fraction(1, 90000))
    assert constant_rate(times, tick=Fraction(1, 90000), declared=[]) == Fraction(37, 3)


@pytest.mark.parametrize("declared", [[], [Fraction(0)], [None]])
def test_one_frame_has_some_rate(declared: list[Fraction | None]) -> None:
    assert constant_rate([Fraction(3)], tick=Fraction(1, 1000), declared=declared) == 25


def test_a_dropped_frame_makes_the_rate_variable() -> None:
    tick = Fraction(1, 1000)
    times = stamped(Fraction(30), 30, tick)
    assert is_variable([*times[:10], *times[11:]], tick=tick)


@given(
    rate=st.sampled_from([Fraction(30), Fraction(60), Fraction(24000, 1001), Fraction(25)]),
    dropped=st.sets(st.integers(1, 298), min_size=1, max_size=90),
    tick=st.sampled_from([Fraction(1, 1000), Fraction(1, 90000)]),
)
def test_dropped_frames_do_not_change_what_a_clip_stands_for(
    rate: Fraction, dropped: set[int], tick: Fraction
) -> None:
    times = [time for n, time in enumerate(stamped(rate, 300, tick)) if n not in dropped]
    assert nominal_rate(times) == pytest.approx(rate, rel=0.002)


def test_a_pause_is_no_rate() -> None:
    hundredths = [Fraction(n, 100) for n in (0, 8, 16, 24, 124, 132, 140)]
    assert nominal_rate(hundredths) == Fraction(25, 2)
    assert nominal_rate([Fraction(0), Fraction(0)]) == 25
    assert nominal_rate([Fraction(n, 10**6) for n in (0, 1, 2, 10**6)]) == 120
