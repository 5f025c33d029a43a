"""Answers that are kept: the longer the computing took, the longer they serve."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from services.learner.service.remembered import TIMES_ITS_COST, Remembered
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
