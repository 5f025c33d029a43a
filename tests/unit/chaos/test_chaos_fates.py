"""Asking what became of feedback: until all of it is final, and an orphan only when nothing can come any more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.benchmarks.chaos import fates
from tests.benchmarks.chaos.fates import ORPHANS_WAIT_S, ROUND_S, Fates
from tests.benchmarks.chaos.statements import Statement

ONE = Statement(feedback_id="f1", rollout_id="r1", token="t1", kind="thumb", value="up", revision=1)
WITHIN_S = 60.0


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tests.benchmarks.chaos.fates.asyncio.sleep", clock.sleep)
    return clock


async def settle(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, answers: Iterator[str], *, may_be_orphaned: bool = False
) -> Fates:
    """A gateway that gives these answers, one a round."""

    async def state(_http: object, _statement: Statement) -> str:
        return next(answers)

    monkeypatch.setattr(fates, "_state", state)
    asked = Fates("http://nobody", [ONE], may_be_orphaned=lambda one: may_be_orphaned, now=clock)
    await asked.settle(WITHIN_S)
    return asked


async def test_it_asks_until_all_is_final(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    asked = await settle(monkeypatch, clock, iter(["", "accepted", "waiting", "joined"]))
    assert (asked.states, asked.final, clock.now) == ({"f1": "joined"}, 1, 4 * ROUND_S)


async def test_an_orphan_that_nothing_explains_is_asked_about_to_the_end(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    late = 4 * int(ORPHANS_WAIT_S / ROUND_S)
    asked = await settle(monkeypatch, clock, iter(["orphaned"] * late + ["joined"]))
    assert asked.states == {"f1": "joined"}
    began = clock.now
    stays = await settle(monkeypatch, clock, iter(["orphaned"] * 1000))
    assert stays.states == {"f1": "orphaned"}
    assert clock.now - began >= WITHIN_S


async def test_an_orphan_that_a_kill_explains_is_asked_about_a_little_longer(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    asked = await settle(monkeypatch, clock, iter(["orphaned"] * 1000), may_be_orphaned=True)
    assert asked.states == {"f1": "orphaned"}
    assert ORPHANS_WAIT_S < clock.now < WITHIN_S / 2


async def test_what_does_not_become_final_ends_with_the_time(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    asked = await settle(monkeypatch, clock, iter(["waiting"] * 1000))
    assert (asked.states, asked.final) == ({"f1": "waiting"}, 0)
    assert clock.now <= WITHIN_S + 2 * ROUND_S
