"""Shares of partitions: all of them, fairly, to every member."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.learner.ingest.sharing import shares, surplus
from services.shared.bus.interface import Place

members = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=9, unique=True).map(sorted)
partitions = st.dictionaries(st.sampled_from(["feedback", "rollouts", "scores", "more"]), st.integers(0, 17))


@given(partitions=partitions, members=members)
def test_they_add_up_and_are_even(partitions: dict[str, int], members: list[str]) -> None:
    each = [shares(partitions, members, name) for name in members]
    for topic, count in partitions.items():
        of_topic = [share[topic] for share in each]
        assert sum(of_topic) == count
        assert max(of_topic) - min(of_topic) <= 1
    totals = [sum(share.values()) for share in each]
    assert max(totals) - min(totals) <= 1


@given(
    held=st.sets(st.tuples(st.sampled_from(["feedback", "rollouts"]), st.integers(0, 9)).map(lambda p: Place(*p))),
    share=st.fixed_dictionaries({"feedback": st.integers(0, 6), "rollouts": st.integers(0, 6)}),
)
def test_what_is_given_back_leaves_the_share(held: set[Place], share: dict[str, int]) -> None:
    given_back = surplus(held, share)
    assert set(given_back) <= held and len(given_back) == len(set(given_back))
    for topic, most in share.items():
        mine = [place for place in held if place.topic == topic]
        kept = [place for place in mine if place not in given_back]
        assert len(kept) == min(most, len(mine))
        assert all(place < gone for place in kept for gone in given_back if gone.topic == topic)
