"""Retention: what training needs stays, the rest of the heavy rows goes, page by page."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from services.learner.state.dump import dump_digest
from services.learner.state.features_retention import PAST_RETENTION, FeaturesRetention
from services.learner.state.retention_rounds import ROUND_S
from services.shared.domain.errors import Fenced
from services.shared.domain.feedback import Rating
from services.shared.store.database import Database
from services.shared.store.tables import experiences, features, reference_passes
from tests.support.facts import (
    at,
    make_feedback,
    make_rollout,
    make_score,
    make_thumb,
    policy_version,
    reward_version,
)
from tests.support.learner_store import LearnerStore, ManualClock, ingest_facts
from tests.support.retention import run_round

KEEP_S = 500.0
NEWEST = "newest"
"""Of no rollout that came: its score says that there is traffic now."""


def retention(learner: LearnerStore, *, rated: int = 100, page: int = 3) -> FeaturesRetention:
    now = (learner.clock() - at(0)).total_seconds()
    ingest_facts(learner.database, learner.clock, [make_score(make_rollout(NEWEST), seconds=now)])
    return FeaturesRetention(
        learner.database, clock=learner.clock, epoch=learner.epoch, keep_s=KEEP_S, rated_examples=rated, page=page
    )


def fill(learner: LearnerStore, *names: str, rated: bool = False, seconds: float = 0.0, **values: Any) -> None:
    for index, name in enumerate(names):
        rollout = make_rollout(name, seconds=seconds + index, **values)
        ingest_facts(learner.database, learner.clock, [rollout, make_score(rollout, seconds=seconds + index + 1)])
        if rated:
            thumb = make_thumb(f"f-{name}", rollout=name, seconds=seconds + index + 2)
            ingest_facts(learner.database, learner.clock, [thumb])


def left(database: Database) -> tuple[set[str], set[str]]:
    """Rollouts with a reference pass, and with features."""
    with database.read() as connection:
        passes, feats = (set(connection.scalars(select(table.c.rollout_id))) for table in (reference_passes, features))
    return passes - {NEWEST}, feats - {NEWEST}


@pytest.fixture
def begun(learner: LearnerStore) -> LearnerStore:
    learner.commits.commit_first(learner.candidate(0))
    return learner


def claim(learner: LearnerStore, limit: int) -> list[str]:
    found = learner.experiences.claim(
        limit=limit, policy_version=policy_version(0), reward_model_version=reward_version(0)
    )
    return [experience.rollout.rollout_id for experience in found]


def test_what_is_young_stays_and_what_is_old_goes(begun: LearnerStore, clock: ManualClock) -> None:
    fill(begun, *(f"old-{number}" for number in range(7)))
    fill(begun, "young", seconds=900)
    assert run_round(retention(begun)) == 14
    assert left(begun.database) == ({"young"}, {"young"})


@pytest.mark.parametrize("ahead_s", [KEEP_S * 10, -KEEP_S * 10], ids=["ahead", "behind"])
def test_a_wrong_clock_deletes_nothing_that_is_young(begun: LearnerStore, clock: ManualClock, ahead_s: float) -> None:
    keeper = retention(begun)
    fill(begun, "young", seconds=900)
    clock.advance(ahead_s)
    assert run_round(keeper) == 0
    assert left(begun.database) == ({"young"}, {"young"})


def test_a_claimed_experience_keeps_all_until_it_is_used(begun: LearnerStore, clock: ManualClock) -> None:
    fill(begun, "r1", "r2")
    assert claim(begun, 1) == ["r2"]
    assert run_round(retention(begun)) == 2
    assert left(begun.database) == ({"r2"}, {"r2"})
    begun.experiences.discard(["r2"], reason="test")
    assert run_round(retention(begun)) == 2
    assert left(begun.database) == (set(), set())


def test_an_experience_that_nobody_claimed_becomes_stale(begun: LearnerStore, clock: ManualClock) -> None:
    fill(begun, "r1")
    run_round(retention(begun))
    assert claim(begun, 9) == []
    with begun.database.read() as connection:
        row = connection.execute(select(experiences).where(experiences.c.rollout_id == "r1")).one()
    assert (row.state, row.stale_reason) == ("stale", PAST_RETENTION)


def test_features_stay_as_long_as_their_thumb_is_among_the_newest(begun: LearnerStore, clock: ManualClock) -> None:
    fill(begun, "r1", "r2", "r3", "r4", rated=True)
    fill(begun, "unfit", temperature=1.9)
    other = make_feedback("f-unfit", rollout="unfit", body=Rating(stars=5))
    ingest_facts(begun.database, clock, [other])
    before = begun.experiences.rated_examples(limit=2)
    run_round(retention(begun, rated=2))
    assert left(begun.database) == (set(), {"r3", "r4"})
    assert begun.experiences.rated_examples(limit=2) == before
    taken_back = make_feedback("f-r4b", rollout="r4", retracted=True, seconds=50)
    ingest_facts(begun.database, clock, [taken_back])
    run_round(retention(begun, rated=2))
    assert left(begun.database)[1] == {"r3"}


def test_a_turn_is_bounded_and_rounds_keep_their_distance(begun: LearnerStore, clock: ManualClock) -> None:
    fill(begun, *(f"r{number}" for number in range(7)))
    keeper = retention(begun, page=3)
    assert [keeper.step() for _ in range(6)] == [3, 3, 1, 3, 3, 1]
    fill(begun, "r8")
    clock.advance(ROUND_S - 1)
    assert keeper.step() == 0
    clock.advance(1)
    assert run_round(keeper) == 2


def test_the_log_says_the_same_before_and_after(begun: LearnerStore, clock: ManualClock) -> None:
    fill(begun, "r1", "r2", rated=True)
    keeper = retention(begun, rated=1)
    before = dump_digest(begun.database)
    assert run_round(keeper) == 3
    assert dump_digest(begun.database) == before


def test_an_old_leader_deletes_nothing(begun: LearnerStore, clock: ManualClock) -> None:
    fill(begun, "r1")
    keeper = retention(begun)
    LearnerStore(begun.database, clock)
    with pytest.raises(Fenced):
        keeper.step()
    assert left(begun.database) == ({"r1"}, {"r1"})
