"""Who is struck is decided by the seed, and everyone has their share."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from services.embedded.plan import ROOMS
from tests.benchmarks.chaos.report import Form, aims, missed
from tests.benchmarks.chaos.strikes import READS_LOG, plan_broker_strikes, plan_strikes
from tests.benchmarks.chaos.world import BROKER, VICTIMS


@pytest.mark.parametrize(("kills", "fewest"), [(100, 15), (150, 22), (20, 3), (8, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_each_victim_gets_its_share(kills: int, fewest: int, seed: int) -> None:
    struck = Counter(strike.victim for strike in plan_strikes(kills, seed))
    assert sum(struck.values()) == kills
    assert set(struck) == set(VICTIMS)
    assert min(struck.values()) >= fewest


def test_the_seed_decides() -> None:
    assert plan_strikes(30, 1) == plan_strikes(30, 1)
    assert plan_strikes(30, 1) != plan_strikes(30, 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_broker_is_struck_so_often_and_some_of_its_tails_are_unread(seed: int) -> None:
    strikes = plan_broker_strikes(20, 3, seed)
    assert Counter(strike.victim for strike in strikes) == {BROKER: 20, **dict.fromkeys(ROOMS, 3)}
    unread = [(first.hasty, second.victim) for first, second in pairwise(strikes) if first.victim == READS_LOG]
    assert unread == [(True, BROKER)] * 3
    assert strikes == plan_broker_strikes(20, 3, seed)


def test_missed_aims_are_named() -> None:
    wanted = aims(Form(), 3)
    figures = {"kills": 100.0, "lost": 1.0, "releases": 19.0}
    assert missed(figures, wanted) == ["releases is 19, wanted >= 20", "lost is 1, wanted == 0"]
    assert missed({"kills": 100.0, "lost": 0.0, "releases": 20.0}, wanted) == []
