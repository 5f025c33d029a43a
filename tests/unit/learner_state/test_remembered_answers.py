"""Answers that are kept: the longer the computing took, the longer they serve."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from services.learner.service.remembered import TIMES_ITS_COST, Remembered
from services.shared.domain.errors import Busy
from tests.support.learner_store import ManualClock


class Slow:
    """Takes `cost_s` of the clock, and tells how often it was asked."""

    def __init__(self, clock: ManualClock, cost_s: float) -> None:
        self.clock, self.cost_s, self.asked = clock, cost_s, 0

    def __call__(self, now: datetime) -> int:
        assert now == self.clock()
        self.asked += 1
        self.clock.advance(self.cost_s)
        return self.asked


def test_what_took_long_serves_long_and_is_computed_again() -> None:
    clock = ManualClock()
    answer = Remembered(Slow(clock, 3.0), clock=clock)
    assert answer() == 1
    clock.advance(3.0 * TIMES_ITS_COST - 0.001)
    assert answer() == 1
    clock.advance(0.001)
    assert answer() == 2


def test_what_took_no_time_is_always_new() -> None:
    clock = ManualClock()
    answer = Remembered(Slow(clock, 0.0), clock=clock)
    assert [answer(), answer()] == [1, 2]


def test_it_serves_at_least_so_long() -> None:
    clock = ManualClock()
    answer = Remembered(Slow(clock, 0.0), clock=clock, least=timedelta(seconds=2))
    assert answer() == 1
    clock.advance(1.9)
    assert answer() == 1
    clock.advance(0.1)
    assert answer() == 2


def test_a_clock_set_back_keeps_nothing_alive() -> None:
    clock = ManualClock(seconds=1000.0)
    answer = Remembered(Slow(clock, 1.0), clock=clock)
    assert answer() == 1
    clock.advance(-500.0)
    assert answer() == 2


def test_a_failure_is_told_and_asked_again() -> None:
    clock = ManualClock()
    failures = [True, False]

    def compute(_now: datetime) -> str:
        if failures.pop(0):
            raise RuntimeError("away")
        return "there"

    answer = Remembered(compute, clock=clock)
    with pytest.raises(RuntimeError):
        answer()
    assert answer() == "there"


class Held:
    """Numbers its answers; the `slow` ones wait to be let go."""

    def __init__(self, *slow: int) -> None:
        self.slow, self.asked = slow, 0
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, _now: datetime) -> int:
        self.asked += 1
        mine = self.asked
        if mine in self.slow:
            self.begun.set()
            assert self.go_on.wait(30)
        return mine


def while_computing(held: Held, answer: Remembered[int], look: Callable[[], None]) -> int:
    """Looks while another thread is at a slow answer; what that gave."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(answer)
        try:
            assert held.begun.wait(30)
            look()
        finally:
            held.go_on.set()
        return slow.result(30)


def test_while_one_computes_the_others_get_the_answer_there_was() -> None:
    clock = ManualClock()
    held = Held(2)
    answer = Remembered(held, clock=clock, least=timedelta(seconds=2))
    assert answer() == 1
    clock.advance(3)
    seen: list[int] = []
    assert while_computing(held, answer, lambda: seen.extend(answer() for _ in range(100))) == 2
    assert seen == [1] * 100
    assert (answer(), held.asked) == (2, 2)


def test_nobody_waits_long_for_the_first_answer() -> None:
    clock = ManualClock()
    held = Held(1)
    answer = Remembered(held, clock=clock, least=timedelta(seconds=2), first_wait_s=0.01)

    def look() -> None:
        with pytest.raises(Busy) as refused:
            answer()
        assert refused.value.retry_after

    assert while_computing(held, answer, look) == 1
    assert (answer(), held.asked) == (1, 1)
