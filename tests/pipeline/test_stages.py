from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli import stages
from metaportrait_cli.progress import Stopwatch
from metaportrait_cli.stages import aside, by_turns, foreseen, prefetched, side_by_side


def test_items_come_in_order() -> None:
    assert list(prefetched(range(100), depth=3)) == list(range(100))


def test_what_comes_is_looked_at_before_it_is_taken() -> None:
    seen: list[int] = []
    for item in foreseen(range(20), seen.append, depth=5):
        assert seen == list(range(min(item + 6, 20)))
    assert list(foreseen(range(3), seen.append, depth=5)) == [0, 1, 2]


def test_never_further_ahead_than_depth() -> None:
    made = []

    def work() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    for i in prefetched(work(), depth=4):
        time.sleep(0.002)
        assert len(made) <= i + 1 + 4


def test_fewer_of_large_items_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "MOST_WAITING_BYTES", 100)
    made = []

    def work() -> Iterator[NDArray[np.uint8]]:
        for i in range(20):
            made.append(i)
            yield np.zeros(60, np.uint8)

    for i, _ in enumerate(prefetched(work(), depth=8)):
        time.sleep(0.002)
        assert len(made) <= i + 1 + 2


def test_errors_come_out_where_items_do() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(prefetched(work(), depth=2))


class Unclosable:
    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        raise StopIteration

    def close(self) -> None:
        raise OSError("broken")


class Unbegun:
    def __iter__(self) -> Iterator[int]:
        raise OSError("broken")


@pytest.mark.parametrize("items", [Unclosable(), Unbegun()])
def test_nobody_waits_for_what_fails_at_its_ends(items: Iterable[int]) -> None:
    with pytest.raises(OSError, match="broken"):
        list(prefetched(items, depth=2))


def test_leaving_early_stops_the_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def work() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    items = prefetched(work(), depth=2)
    next(items)
    items.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_a_stage_inside_another_counts_alone() -> None:
    stopwatch = Stopwatch()

    def inner() -> Iterator[int]:
        for i in range(3):
            time.sleep(0.01)
            yield i

    def outer() -> Iterator[int]:
        for i in stopwatch.timed("inner", inner()):
            time.sleep(0.002)
            yield i

    assert list(stopwatch.timed("outer", outer())) == [0, 1, 2]
    assert stopwatch.seconds["inner"] >= 0.03
    assert 0.006 <= stopwatch.seconds["outer"] < 0.03


def test_what_is_made_aside_has_ended_with_the_block() -> None:
    before, ended, left = threading.active_count(), threading.Event(), []

    def make() -> None:
        time.sleep(0.05)
        ended.set()

    def fail() -> None:
        with aside() as thread:
            thread.submit(make)
            left.append(thread.submit(make))
            raise ValueError("meanwhile")

    with pytest.raises(ValueError, match="meanwhile"):
        fail()
    assert ended.is_set()
    assert left[0].cancelled()
    assert threading.active_count() == before


def test_side_by_side_keeps_the_order_and_may_be_nested() -> None:
    def tens(x: int) -> list[int]:
        return side_by_side(lambda y: 10 * x + y, [0, 1, 2])

    assert side_by_side(tens, [1, 2, 3]) == [[10, 11, 12], [20, 21, 22], [30, 31, 32]]


def test_half_as_many_threads_as_there_are_cores_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = threading.Semaphore(2)
    monkeypatch.setattr(stages, "_turns", lambda: turns)
    now, most = 0, 0
    lock = threading.Lock()

    @by_turns
    def within(number: int) -> int:
        return number * number

    @by_turns
    def work(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        if number == 7:
            raise ValueError("seven")
        return within(number)  # is no turn of its own

    with ThreadPoolExecutor(6) as threads:
        found = [threads.submit(work, number) for number in range(20)]
    assert [future.result() for future in found if not future.exception()] == [
        number * number for number in range(20) if number != 7
    ]
    assert most == 2
    assert turns.acquire(blocking=False)
    assert turns.acquire(blocking=False)
