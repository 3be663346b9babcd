from __future__ import annotations

import re

import pytest

from metaportrait_cli.cli.display import Display, Step, spoken


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(frames: int, *, seconds: float, window: int = 1, **parts: Step | float) -> list[str]:
    """What a stage shows whose frames come `window` at a time."""
    told: list[str] = []
    clock = Clock()
    display = Display(told.append, parts, bars=False, clock=clock)
    for done in range(1, frames + 1):
        if done % window == 0:
            clock.now += seconds * window
        display.show("landmarks", done, frames)
    return told


def test_no_rate_before_there_is_one() -> None:
    assert lines(1, seconds=0.001) == ["landmarks: 1/1 frames"]
    assert lines(20, seconds=0.01) == ["landmarks: 20/20 frames"]


@pytest.mark.parametrize("window", [1, 16])
def test_rates_hold_where_frames_come_in_bursts(window: int) -> None:
    told = lines(640, seconds=0.1, window=window)
    rates = [float(found[1]) for line in told if (found := re.search(r"([\d.]+) fps", line))]
    assert len(rates) > 5
    assert all(8 < rate < 12.5 for rate in rates)


def test_the_time_left_is_that_of_the_whole_command() -> None:
    alone = next(line for line in lines(1000, seconds=0.1) if "landmarks: 5" in line[:12])
    assert alone.endswith("about 95 s left")
    told = lines(1000, seconds=0.1, landmarks=1.0, render=2.0)
    both = next(line for line in told if line.startswith("landmarks (1/2): 5"))
    assert both.endswith("about 5 min left")  # 95 s and 200 s


def test_a_stage_of_a_set_time_counts_as_that_on_any_machine() -> None:
    parts = {"look": Step(1, "pictures"), "adapt": Step(items="s", seconds=30), "judge": Step(1)}
    told: list[str] = []
    clock = Clock()
    display = Display(told.append, parts, bars=False, clock=clock)
    for done in range(11):
        display.show("look", done, 10)
        clock.now += 2
    assert told[-1] == "look (1/3): 10/10 pictures, about 50 s left"  # the whole took 20 s
    display.show("adapt", 0, 30)
    clock.now += 10
    display.show("adapt", 10, 30)
    assert told[-1] == "adapt (2/3): 10/30 s, about 40 s left"


def test_times_are_spoken() -> None:
    assert [spoken(s) for s in (3.2, 99, 130, 4800)] == ["3 s", "99 s", "2 min", "1 h 20 min"]
