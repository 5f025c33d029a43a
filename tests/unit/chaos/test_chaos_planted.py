"""A planted fault is seen in a run that went as planned, and for the fault's own reason; a broken plant is not."""

from __future__ import annotations

import pytest

from tests.benchmarks.chaos.faults import KILLS, PLANTED, was_seen
from tests.benchmarks.chaos.run import Outcome
from tests.benchmarks.chaos.verdict import Verdict
from tests.unit.chaos.outcomes import kills, outcome

FAULT = PLANTED[0]
STRUCK = kills(*["learner"] * KILLS)
RED = Verdict(lost=["f9 is not in the store"])


def test_a_fault_is_seen_where_most_arrived_and_something_was_lost() -> None:
    assert was_seen(FAULT, outcome(stored=9, blows=STRUCK, verdict=RED))


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(outcome(stored=9, blows=STRUCK, verdict=RED, stalled="the learner keeps dying"), id="stalled"),
        pytest.param(outcome(stored=0, blows=STRUCK, verdict=RED), id="nothing arrived"),
        pytest.param(outcome(stored=4, blows=STRUCK, verdict=RED), id="less than half arrived"),
        pytest.param(outcome(acknowledged=0, stored=0, blows=STRUCK, verdict=RED), id="nothing was said"),
        pytest.param(outcome(stored=9, blows=STRUCK[1:], verdict=RED), id="not all hit"),
        pytest.param(outcome(stored=9, blows=STRUCK), id="nothing found"),
        pytest.param(outcome(blows=STRUCK, verdict=Verdict(unresolved=["f9 is waiting"])), id="another finding"),
    ],
)
def test_a_run_that_is_red_for_another_reason_has_not_seen_it(broken: Outcome) -> None:
    assert not was_seen(FAULT, broken)
