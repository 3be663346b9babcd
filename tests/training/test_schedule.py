"""The learning rate warms up, stays, and cools down."""

from __future__ import annotations

import pytest

from metaportrait_cli.training.schedule import FINAL_SHARE, rate_share


def test_it_warms_up_and_cools_down() -> None:
    rates = [rate_share(step, steps=1000, warm_up=10) for step in range(1001)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert rates[500] == pytest.approx((1 + FINAL_SHARE) / 2)
    assert rates[1000] == pytest.approx(FINAL_SHARE)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_it_stays_for_as_long_as_it_is_told() -> None:
    rates = [rate_share(step, steps=1000, warm_up=0, plateau=0.6) for step in range(1001)]
    assert rates[0] == rates[600] == 1.0
    assert rates[601] < 1.0
    assert rates[1000] == pytest.approx(FINAL_SHARE)
