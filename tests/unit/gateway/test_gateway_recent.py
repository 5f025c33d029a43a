"""What was acknowledged lately: found by rater or by tenant, at one price however much is remembered."""

from __future__ import annotations

import pickle

from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.feedback.recent import Acknowledged, RecentFeedback
from services.gateway.feedback.turns import StatementId
from services.shared.domain.feedback import FeedbackState
from tests.support.facts import make_thumb

CAPACITY = 4
NAMES = st.builds(StatementId, st.sampled_from("st"), st.sampled_from("abc"), st.sampled_from("xyz"))


class Compared(str):
    """A feedback id that counts what it is compared with."""

    __slots__ = ("times",)
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        self.times = getattr(self, "times", 0) + 1
        return str.__eq__(self, other)


def acknowledged(name: StatementId) -> Acknowledged:
    said = make_thumb(name.feedback_id, rater=name.rater_id, rollout=f"r-{name.rater_id}")
    return Acknowledged.of(said, FeedbackState.ACCEPTED)


def test_an_unknown_id_is_not_looked_for_among_all() -> None:
    recent = RecentFeedback(1_000)
    for number in range(1_000):
        name = StatementId("tenant", f"rater-{number}", f"f-{number}")
        recent.remember(name, acknowledged(name))
    unknown = Compared("unknown")
    assert recent.find_of_tenant("tenant", unknown) is None
    assert getattr(unknown, "times", 0) < 10
    found = recent.find_of_tenant("tenant", "f-0")
    assert found is not None and found.rater_id == "rater-0"


@settings(max_examples=300)
@given(st.lists(st.one_of(NAMES, st.tuples(st.sampled_from("st"), st.sampled_from("abc"))), max_size=25))
def test_a_tenant_is_told_the_newest_that_is_kept(steps: list[StatementId | tuple[str, str]]) -> None:
    """A step is a statement, or (tenant, rater): the rater is forgotten. A list of what is kept says what is right."""
    recent, kept = RecentFeedback(CAPACITY), list[StatementId]()
    for step in steps:
        if isinstance(step, StatementId):
            recent.remember(step, acknowledged(step))
            kept = [*kept, step][-CAPACITY:] if step not in kept else kept
        else:
            recent.forget(*step, [])
            kept = [name for name in kept if (name.tenant, name.rater_id) != step]
    for tenant in "st":
        for feedback_id in "xyz":
            raters = [one.rater_id for one in kept if (one.tenant, one.feedback_id) == (tenant, feedback_id)]
            found = recent.find_of_tenant(tenant, feedback_id)
            assert (None if found is None else found.rater_id) == (raters[-1] if raters else None)


def test_nothing_stays_of_what_is_gone() -> None:
    recent = RecentFeedback(CAPACITY)
    for number in range(10 * CAPACITY):
        name = StatementId("tenant", f"rater-{number % 3}", f"f-{number % 7}")
        recent.remember(name, acknowledged(name))
    for number in range(3):
        recent.forget("tenant", f"rater-{number}", [])
    assert pickle.dumps(recent) == pickle.dumps(RecentFeedback(CAPACITY))
