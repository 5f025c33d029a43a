"""Rollouts past retention: they go with all that hangs on them, do not come back, and the store stops growing."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Table, func, select

from services.learner.forgetting.tombstones import hold_off_forgetting
from services.learner.ports import Candidate, Verdict
from services.learner.state.dump import canonical_dump
from services.learner.state.past_retention import read_floor
from services.learner.state.queries.releases import ReleaseViews
from services.learner.state.queries.stored_feedback import FeedbackReference, stored_feedback
from services.learner.state.queries.stored_rollouts import stored_rollouts
from services.learner.state.queries.thumb_to_token import thumb_times
from services.learner.state.retention_rounds import ROUND_S
from services.learner.state.rollouts_retention import RolloutsRetention
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.domain.errors import Fenced
from services.shared.domain.feedback import Comment, Comparison, FeedbackKind
from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import RolloutProgress
from services.shared.ids import least_id
from services.shared.store.database import Database
from services.shared.store.tables import (
    experiences,
    features,
    feedback,
    feedback_slots,
    metadata,
    reference_passes,
    rollout_versions,
    rollouts,
    scores,
    uses,
)
from tests.support.facts import at, make_feedback, make_rollout, make_score, make_thumb, policy_version, reward_version
from tests.support.learner_store import Fact, LearnerStore, ManualClock, append_fact, ingest_facts, make_ingest
from tests.support.retention import run_round
from tests.support.small_log import SmallLog

KEEP_S = 500.0
OF_ROLLOUTS = (
    rollouts,
    rollout_versions,
    scores,
    reference_passes,
    features,
    experiences,
    feedback,
    feedback_slots,
    uses,
)


def rollout_id(seconds: float, number: int = 0) -> str:
    """A UUIDv7 that was minted so many seconds after the start."""
    return f"{least_id(at(seconds))}-7{number:03x}-8000-000000000000"


NEWEST = rollout_id(1000)
"""Minted now; ages are beside the newest rollout."""


def life(name: str, *, seconds: float, rated: bool = True, **values: Any) -> list[Fact]:
    """A rollout, its score, and what was said of it: of every table a row."""
    rollout = make_rollout(name, seconds=seconds, **values)
    tenant = rollout.meta.tenant
    said: list[Fact] = [
        make_thumb(f"f-{name}", rollout=name, seconds=seconds + 2, tenant=tenant),
        make_feedback(f"c-{name}", rollout=name, seconds=seconds + 3, body=Comment(text="Hm."), tenant=tenant),
    ]
    return [rollout, make_score(rollout, seconds=seconds + 1), *(said if rated else [])]


def retention(learner: LearnerStore, *, keep_s: float = KEEP_S, rated: int = 1, page: int = 3) -> RolloutsRetention:
    return RolloutsRetention(
        learner.database, clock=learner.clock, epoch=learner.epoch, keep_s=keep_s, rated_examples=rated, page=page
    )


def left(database: Database, table: Table = rollouts) -> set[str]:
    """But for the newest."""
    with database.read() as connection:
        return set(connection.scalars(select(table.c.rollout_id))) - {NEWEST}


def rows(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in metadata.sorted_tables
        }


def train(learner: LearnerStore, number: int, *, limit: int = 100) -> tuple[str, ...]:
    """The next policy, from so many of what is ready; gives its batch."""
    claimed = learner.experiences.claim(
        limit=limit, policy_version=policy_version(number - 1), reward_model_version=reward_version(0)
    )
    batch = tuple(one.rollout.rollout_id for one in claimed)
    release(learner, learner.candidate(number, rollouts=batch))
    return batch


def release(learner: LearnerStore, candidate: Candidate) -> None:
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, Verdict(passed=True, lines=()))


@pytest.fixture
def begun(learner: LearnerStore) -> LearnerStore:
    learner.commits.commit_first(learner.candidate(0))
    learner.commits.commit_first(learner.candidate(0, kind=ReleaseKind.REWARD_MODEL))
    ingest_facts(learner.database, learner.clock, [make_rollout(NEWEST, seconds=1000, temperature=1.9)])
    return learner


def test_what_is_old_goes_from_every_table_and_what_is_young_stays(begun: LearnerStore, clock: ManualClock) -> None:
    old = [rollout_id(seconds) for seconds in range(7)]
    young = rollout_id(900)
    for seconds, name in enumerate(old):
        ingest_facts(begun.database, clock, life(name, seconds=seconds))
    ingest_facts(begun.database, clock, life(rollout_id(7), seconds=7, tenant="other"))
    ingest_facts(begun.database, clock, [make_thumb("orphan", rollout=rollout_id(8), seconds=9)])
    ingest_facts(begun.database, clock, life(young, seconds=900))
    assert set(train(begun, 1)) == {*old, rollout_id(7), young}
    assert run_round(retention(begun)) == 9
    assert {table.name: left(begun.database, table) for table in OF_ROLLOUTS} == {
        table.name: {young} for table in OF_ROLLOUTS
    }


def test_what_says_the_worse_of_an_old_answer_stays_with_the_better(begun: LearnerStore, clock: ManualClock) -> None:
    better, worse = rollout_id(900), rollout_id(1)
    ingest_facts(begun.database, clock, [*life(better, seconds=900), *life(worse, seconds=1)])
    compared = make_feedback("c1", rollout=better, body=Comparison(rejected_rollout_id=worse), seconds=902)
    ingest_facts(begun.database, clock, [compared])
    assert run_round(retention(begun)) == 1
    with begun.database.read() as connection:
        assert "c1" in connection.scalars(select(feedback.c.feedback_id)).all()


def test_a_claimed_experience_stays_until_it_is_let_go(begun: LearnerStore, clock: ManualClock) -> None:
    names = [rollout_id(1), rollout_id(2)]
    for seconds, name in enumerate(names, start=1):
        ingest_facts(begun.database, clock, life(name, seconds=seconds, rated=False))
    claimed = begun.experiences.claim(limit=1, policy_version=policy_version(0), reward_model_version=reward_version(0))
    assert [one.rollout.rollout_id for one in claimed] == [names[1]]
    assert run_round(retention(begun)) == 1
    assert left(begun.database) == {names[1]}
    begun.experiences.discard([names[1]], reason="test")
    assert run_round(retention(begun)) == 1


def test_what_the_reward_model_is_trained_on_stays(begun: LearnerStore, clock: ManualClock) -> None:
    names = [rollout_id(seconds) for seconds in range(5)]
    for seconds, name in enumerate(names):
        ingest_facts(begun.database, clock, life(name, seconds=seconds))
    featureless = make_rollout(rollout_id(6), seconds=6)
    ingest_facts(begun.database, clock, [featureless, make_thumb("f6", rollout=featureless.rollout_id, seconds=8)])
    before = begun.experiences.rated_examples(limit=2)
    assert run_round(retention(begun, rated=2)) == 4
    assert left(begun.database) == set(names[3:])
    assert begun.experiences.rated_examples(limit=2) == before


def test_a_claim_of_an_older_leader_keeps_nothing(begun: LearnerStore, clock: ManualClock) -> None:
    ingest_facts(begun.database, clock, life(rollout_id(1), seconds=1, rated=False))
    begun.experiences.claim(limit=1, policy_version=policy_version(0), reward_model_version=reward_version(0))
    assert run_round(retention(begun)) == 0
    assert run_round(retention(LearnerStore(begun.database, clock))) == 1


def test_a_clock_that_is_ahead_deletes_nothing_before_its_time(begun: LearnerStore, clock: ManualClock) -> None:
    young = rollout_id(900)
    ingest_facts(begun.database, clock, [*life(young, seconds=900), *life(rollout_id(1), seconds=1, rated=False)])
    keeper = retention(begun)
    clock.advance(10 * 365 * 86_400)
    assert run_round(keeper) == 1
    assert left(begun.database) == {young}
    with begun.database.read() as connection:
        assert read_floor(connection) == least_id(at(500))


@pytest.mark.parametrize(
    "newest", ["ffffffff-ffff-7fff-bfff-ffffffffffff", "zz", "018bcfe5-6800-4000-8000-000000000000"]
)
def test_a_newest_id_that_tells_no_time_leaves_it_to_the_clock(
    begun: LearnerStore, clock: ManualClock, newest: str
) -> None:
    with begun.database.write() as connection:
        connection.execute(rollouts.update().values(rollout_id=newest))
    run_round(retention(begun))
    with begun.database.read() as connection:
        assert read_floor(connection) == least_id(at(500))


def test_fewer_thumbs_than_train_a_reward_model_all_stay(begun: LearnerStore, clock: ManualClock) -> None:
    ingest_facts(begun.database, clock, life(rollout_id(1), seconds=1))
    ingest_facts(begun.database, clock, life(rollout_id(2), seconds=2, rated=False))
    assert run_round(retention(begun, rated=100)) == 1
    assert left(begun.database) == {rollout_id(1)}


def test_what_went_does_not_come_back_when_the_log_is_read_again(begun: LearnerStore, clock: ManualClock) -> None:
    log = SmallLog([ROLLOUTS, FEEDBACK, SCORES])
    facts = [fact for seconds in range(0, 1000, 100) for fact in life(rollout_id(seconds), seconds=seconds)]
    for fact in facts:
        append_fact(log, fact)
    read_all(log, begun.database, clock, records=len(facts))
    assert run_round(retention(begun)) == 5
    before = canonical_dump(begun.database)
    assert before
    with begun.database.write() as connection:  # as on the embedded broker, which lost its tail
        connection.exec_driver_sql("DELETE FROM ingest_offsets")
    read_all(log, begun.database, clock, records=len(facts))
    assert canonical_dump(begun.database) == before


def test_of_what_is_kept_longer_the_log_may_say_more(begun: LearnerStore, clock: ManualClock) -> None:
    """A retraction that comes late still takes the thumb out of what the reward model is trained on."""
    kept, gone = rollout_id(1), rollout_id(2)
    log = SmallLog([ROLLOUTS, FEEDBACK, SCORES])
    facts = [*life(kept, seconds=1), *life(gone, seconds=2, rated=False)]
    late: list[Fact] = [
        make_feedback(f"late-{name}", rollout=name, retracted=True, seconds=900) for name in (kept, gone)
    ]
    for fact in facts:
        append_fact(log, fact)
    read_all(log, begun.database, clock, records=len(facts))
    assert run_round(retention(begun)) == 1
    references = [FeedbackReference(name, "rater-1", FeedbackKind.THUMB, f"late-{name}") for name in (kept, gone)]
    assert stored_feedback(begun.database, tenant="default", references=references) == [False, True]
    assert [one.rollout_id for one in begun.experiences.rated_examples(limit=9)] == [kept]
    for fact in late:
        append_fact(log, fact)
    read_all(log, begun.database, clock, records=len(late))
    assert begun.experiences.rated_examples(limit=9) == []
    assert stored_feedback(begun.database, tenant="default", references=references) == [True, True]
    assert left(begun.database, feedback) == {kept}


def read_all(log: SmallLog, database: Database, clock: ManualClock, *, records: int) -> None:
    ingest = make_ingest(log, database, clock)
    try:
        read = 0
        for _ in range(100):
            read += ingest.step()
            if read == records:
                return
    finally:
        ingest.stop()
    raise AssertionError(f"read {read} of {records}")


def test_the_store_wants_no_statement_on_what_is_past_retention(begun: LearnerStore, clock: ManualClock) -> None:
    """A gateway that keeps a copy until the store has it may let go."""
    run_round(retention(begun))
    references = [FeedbackReference(rollout_id(seconds), "rater-1", FeedbackKind.THUMB, "f1") for seconds in (1, 900)]
    assert stored_feedback(begun.database, tenant="default", references=references) == [True, False]


def test_the_store_wants_no_rollout_that_is_past_retention(begun: LearnerStore, clock: ManualClock) -> None:
    """A generator that keeps a copy until the store has it may let go."""
    run_round(retention(begun))
    asked = [rollout_id(seconds) for seconds in (1, 900)]
    found = stored_rollouts(begun.database, tenant="default", rollout_ids=asked)
    assert found == [RolloutProgress.SETTLED, RolloutProgress.MISSING]


def test_a_release_keeps_the_time_of_its_first_token(begun: LearnerStore, clock: ManualClock) -> None:
    first, thumbed, later = rollout_id(10), rollout_id(1), rollout_id(900)
    ingest_facts(begun.database, clock, life(thumbed, seconds=1))
    reward_model = begun.candidate(1, kind=ReleaseKind.REWARD_MODEL, rollouts=(thumbed,), feedback=(f"f-{thumbed}",))
    release(begun, reward_model)
    policy = begun.candidate(1, reward_model=1)
    release(begun, policy)
    versions = [(policy_version(1), 4)]
    for name, seconds in ((first, 10.0), (later, 900.0)):
        ingest_facts(begun.database, clock, life(name, seconds=seconds, rated=False, versions=versions))
    shown = ReleaseViews(begun.database).one(policy.version)[0].first_served_time
    times = thumb_times(begun.database, now=clock())
    assert shown == at(10.1) and [time.to_token_s < 10 for time in times] == [True]
    assert run_round(retention(begun)) == 1
    assert left(begun.database) == {thumbed, later}
    assert ReleaseViews(begun.database).one(policy.version)[0].first_served_time == shown
    assert thumb_times(begun.database, now=clock()) == times
    assert ReleaseViews(begun.database).one(reward_model.version)[1] == (thumbed,)


def test_what_was_stored_beside_the_rise_of_the_floor_goes_too(begun: LearnerStore, clock: ManualClock) -> None:
    """Whoever stores reads the floor first; it rises when they are done."""
    keeper, name = retention(begun, page=50), rollout_id(1)
    turn = threading.Thread(target=keeper.step, daemon=True)
    with begun.database.write() as connection:
        hold_off_forgetting(connection)
        assert read_floor(connection) == ""
        turn.start()
        turn.join(0.3)
        assert turn.is_alive()
        connection.execute(experiences.insert().values(rollout_id=name, tenant="default", state="open"))
    turn.join(10)
    assert not turn.is_alive()
    assert left(begun.database, experiences) == set()


def test_the_floor_never_sinks_and_none_is_raised_for_ever(begun: LearnerStore, clock: ManualClock) -> None:
    keeper = retention(begun, keep_s=0)
    ingest_facts(begun.database, clock, life(rollout_id(1), seconds=1))
    assert (keeper.step(), left(begun.database)) == (0, {rollout_id(1)})
    run_round(retention(begun, keep_s=500))
    run_round(retention(begun, keep_s=900))
    with begun.database.read() as connection:
        assert read_floor(connection) == least_id(at(500))


def test_turns_are_bounded_and_rounds_keep_their_distance(begun: LearnerStore, clock: ManualClock) -> None:
    for seconds in range(7):
        ingest_facts(begun.database, clock, life(rollout_id(seconds), seconds=seconds, rated=False))
    keeper = retention(begun, page=3)
    assert [keeper.step() for _ in range(4)] == [3, 3, 1, 0]
    clock.advance(ROUND_S - 1)
    ingest_facts(begun.database, clock, [make_thumb("f9", rollout=rollout_id(9), seconds=10)])
    assert [keeper.step() for _ in range(3)] == [0, 0, 0]
    clock.advance(1)
    assert run_round(keeper) == 1


def test_an_old_leader_deletes_nothing(begun: LearnerStore, clock: ManualClock) -> None:
    ingest_facts(begun.database, clock, life(rollout_id(1), seconds=1, rated=False))
    keeper = retention(begun)
    LearnerStore(begun.database, clock)
    with pytest.raises(Fenced):
        keeper.step()
    assert left(begun.database) == {rollout_id(1)}


def test_the_store_stops_growing(begun: LearnerStore, clock: ManualClock) -> None:
    """Ten retentions of traffic: of nothing but releases there are more rows than after the second, and SQLite's file
    takes no more room than then, since what was deleted is used again.
    """
    most: dict[str, int] = {}
    pages: list[int] = []
    version = 0
    begin = int(clock().timestamp() - at(0).timestamp())
    for period in range(10):
        for step in range(10):
            seconds = begin + period * KEEP_S + step * KEEP_S / 10
            names = [rollout_id(seconds, number) for number in range(10)]
            drawn: dict[str, Any] = {"text": "Welcome! " * 40, "versions": [(policy_version(version), 4)]}
            facts = [fact for name in names for fact in life(name, seconds=seconds, **drawn)]
            ingest_facts(begun.database, clock, facts)
            version += 1
            assert len(train(begun, version, limit=5)) == 5
            clock.advance(KEEP_S / 10)
            run_round(retention(begun, rated=20, page=50))
        now = rows(begun.database)
        if period == 1:
            most = now
        pages.append(_pages(begun.database))
    grown = {name for name, count in now.items() if count > most[name]}
    assert grown == {"announcements", "candidates", "outbox", "releases"}
    assert most["rollouts"] <= 100 + 20 + 10
    if not begun.database.is_postgresql:
        assert pages[-1] <= pages[1] * 1.2


def _pages(database: Database) -> int:
    """Of SQLite's file, without what the few rows of releases take."""
    if database.is_postgresql:
        return 0
    with database.read() as connection:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        of_releases = connection.exec_driver_sql(
            "SELECT sum(pageno IS NOT NULL) FROM dbstat WHERE name LIKE '%releases%' OR name LIKE '%outbox%' OR name"
            " LIKE '%candidates%' OR name LIKE '%announcements%'"
        ).scalar_one()
    return int(used - of_releases)
