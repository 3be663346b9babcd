"""Progress on stderr: a bar on a terminal, a line now and then elsewhere; rates that hold."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LEAST_SECONDS = 1.0
"""Before that a rate says little: the first frames come from a queue."""
WINDOW_SECONDS = 8.0
"""Rates are of the last seconds, or of the last half of a long stage: frames come in bursts."""
BETWEEN_LINES = 5.0


class Pace:
    """How fast one stage goes."""

    def __init__(self, now: float, done: int) -> None:
        self._marks = deque([(now, done)])
        self._first = now, done

    def at(self, now: float, done: int) -> None:
        """Takes note of the frames that are done by now."""
        self._marks.append((now, done))
        reach = max(WINDOW_SECONDS, (now - self._first[0]) / 2)
        while len(self._marks) > 2 and now - self._marks[1][0] >= reach:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Frames a second of late, if that can be told."""
        return _rate(self._marks[0], self._marks[-1])

    @property
    def mean(self) -> float | None:
        """Frames a second from the first on."""
        return _rate(self._first, self._marks[-1])


def _rate(first: tuple[float, int], last: tuple[float, int]) -> float | None:
    seconds, frames = last[0] - first[0], last[1] - first[1]
    return frames / seconds if seconds >= LEAST_SECONDS and frames > 0 else None


@dataclass(frozen=True)
class Step:
    """One stage of a command."""

    cost: float = 0.0
    """Time of all of it, beside the other stages'"""
    items: str = "frames"
    """What is counted"""
    seconds: float | None = None
    """Its time, where that is set beforehand, whatever the machine; instead of a cost"""


class Display:
    """Shows the stages of one command.

    `parts` are its stages, in order; a number is a stage over frames of that cost. The time left is
    that of all of them, as far as they are known.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        parts: Mapping[str, Step | float],
        *,
        bars: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._clock = tell, clock
        self._parts = {
            name: part if isinstance(part, Step) else Step(part) for name, part in parts.items()
        }
        self._unit: float | None = None
        """Seconds that a cost of 1 takes, once that is known"""
        self._bars = sys.stderr.isatty() if bars is None else bars
        self._stage, self._pace = "", Pace(0.0, 0)
        self._told = self._clock()
        self._bar = None

    def show(self, stage: str, done: int, total: int | None) -> None:
        """The callback that library functions take."""
        now = self._clock()
        if stage != self._stage:
            self.close()
            self._stage, self._pace = stage, Pace(now, done)
        else:
            self._pace.at(now, done)
        finished = done == total
        rate = self._pace.mean if finished else self._pace.rate
        part = self._parts.get(stage, Step())
        words = f"{rate:.1f} fps" if rate and part.items == "frames" else ""
        left = None if rate is None or not total else self.seconds_left(done, total, rate)
        if left is not None and left >= 1:
            words += f", about {spoken(left)} left"
        words = words.removeprefix(", ")
        if self._bars:
            self._draw(done, total, words)
        elif finished or now - self._told >= BETWEEN_LINES:
            self._told = now
            of = f"/{total}" if total else ""
            self._tell(
                f"{self._titled(stage)}: {done}{of} {part.items}" + (f", {words}" if words else "")
            )

    def seconds_left(self, done: int, total: int, rate: float) -> float:
        """Of this stage and, as far as their costs are known, of those after it."""
        left = (total - done) / rate
        if self._stage not in self._parts:
            return left
        if cost := self._parts[self._stage].cost:
            self._unit = total / rate / cost
        order = list(self._parts)
        for name in order[order.index(self._stage) + 1 :]:
            part = self._parts[name]
            left += part.cost * (self._unit or 0) if part.seconds is None else part.seconds
        return left

    def _titled(self, stage: str) -> str:
        """The stage's name, with which of how many it is."""
        if stage not in self._parts or len(self._parts) == 1:
            return stage
        return f"{stage} ({list(self._parts).index(stage) + 1}/{len(self._parts)})"

    def _draw(self, done: int, total: int | None, words: str) -> None:
        if self._bar is None:
            from tqdm import tqdm  # noqa: PLC0415

            shape = "{desc:>15} {bar} {n_fmt}/{total_fmt} {postfix}"
            self._bar = tqdm(
                total=total,
                desc=self._titled(self._stage),
                file=sys.stderr,
                bar_format=shape if total else "{desc:>15} {n_fmt} {postfix}",
                dynamic_ncols=True,
            )
        self._bar.total = total
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.refresh()

    def close(self) -> None:
        """Ends the bar; what comes next may be on a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def spoken(seconds: float) -> str:
    """A time as people say it: `40 s`, `3 min`, `1 h 20 min`."""
    if seconds < 100:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"
