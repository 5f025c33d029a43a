"""Tenants never see one another's rows, even where all their ids are the same.

Ids are minted so that this does not happen; the tests show what holds when it does. A rollout id belongs to the tenant
whose rollout came first. Another tenant's events of that id change nothing of it: they lie in rows of their own, where
they wait for a rollout that never comes.
"""

from __future__ import annotations

from itertools import permutations

import pytest
from sqlalchemy import select

from services.learner.ports import Verdict
from services.learner.state.dump import canonical_dump
from services.learner.state.queries.feedback_fate import FeedbackFates
from services.learner.state.queries.releases import ReleaseViews
from services.learner.state.queries.stored_feedback import FeedbackReference, stored_feedback
from services.learner.state.queries.thumb_to_token import thumb_times
from services.shared.domain.errors import NotFound
from services.shared.domain.feedback import FeedbackKind, FeedbackState
from services.shared.domain.release import ReleaseKind
from services.shared.store.database import Database
from services.shared.store.tables import experiences, uses
from tests.support.facts import at, make_features, make_rollout, make_score, make_thumb, policy_version, reward_version
from tests.support.learner_store import Fact, LearnerStore, ManualClock, ingest_facts
from tests.support.stores import Stores

OURS, THEIRS = "default", "other"


def facts_of(tenant: str, *, up: bool, text: str, seconds: float = 2.0) -> list[Fact]:
    """A rollout, its score and a thumb; all ids are the same for every tenant."""
    rollout = make_rollout("r1", tenant=tenant, text=text)
    features = make_features(*((1.0, 1.0, 1.0, 1.0) if up else (-1.0, -1.0, -1.0, -1.0)))
    score = make_score(rollout, mean=0.75 if up else 0.25, features=features, seconds=3.0 if tenant == OURS else 1.0)
    return [rollout, score, make_thumb("f1", rollout="r1", up=up, tenant=tenant, seconds=seconds)]


@pytest.fixture
def begun(learner: LearnerStore) -> LearnerStore:
    """With release 0 of each kind, and two tenants that use the same ids; ours came first."""
    for kind in ReleaseKind:
        learner.commits.commit_first(learner.candidate(0, kind=kind))
    ingest_facts(learner.database, learner.clock, facts_of(OURS, up=True, text="ours"))
    ingest_facts(learner.database, learner.clock, facts_of(THEIRS, up=False, text="theirs", seconds=9.0))
    return learner


def lines_of(database: Database, tenant: str) -> list[str]:
    return [line for line in canonical_dump(database) if f'"tenant":"{tenant}"' in line]


class TestIngest:
    def test_nothing_of_ours_changes(self, stores: Stores, clock: ManualClock) -> None:
        alone, shared = stores.open("alone"), stores.open("shared")
        for database in (alone, shared):
            ingest_facts(database, clock, facts_of(OURS, up=True, text="ours"))
        ingest_facts(shared, clock, facts_of(THEIRS, up=False, text="theirs"))
        assert lines_of(shared, OURS) == lines_of(alone, OURS)
        assert len(lines_of(alone, OURS)) == 8
        theirs = lines_of(shared, THEIRS)
        assert not [line for line in theirs if line.startswith(("rollouts", "rollout_versions"))]
        (waiting,) = [line for line in theirs if line.startswith("experiences")]
        assert '"end_time":null' in waiting and '"eligible":false' in waiting

    def test_scores_of_both_in_one_batch_count(self, stores: Stores, clock: ManualClock) -> None:
        rollout, ours, _ = facts_of(OURS, up=True, text="ours")
        _, theirs, _ = facts_of(THEIRS, up=False, text="theirs")
        for number, order in enumerate(permutations([ours, theirs])):
            database = stores.open(f"order-{number}")
            ingest_facts(database, clock, [rollout, *order])
            with database.read() as connection:
                counted = connection.execute(select(experiences.c.tenant).where(experiences.c.scored)).scalars().all()
            assert sorted(counted) == sorted([OURS, THEIRS])

    def test_theirs_may_come_before_our_rollout(self, stores: Stores, clock: ManualClock) -> None:
        rollout, *said = facts_of(OURS, up=True, text="ours")
        _, their_score, their_thumb = facts_of(THEIRS, up=False, text="theirs")
        dumps = set()
        for number, order in enumerate(permutations([rollout, said[1], their_score, their_thumb])):
            database = stores.open(f"order-{number}")
            for fact in order:
                ingest_facts(database, clock, [fact])
            dumps.add("\n".join(canonical_dump(database)))
            database.close()
        assert len(dumps) == 1

    def test_one_batch_may_hold_both(self, database: Database, clock: ManualClock) -> None:
        ours, theirs = facts_of(OURS, up=True, text="ours"), facts_of(THEIRS, up=False, text="theirs")
        ingest_facts(database, clock, [fact for pair in zip(ours, theirs, strict=True) for fact in pair])
        with database.read() as connection:
            rated = {row.tenant: row.rated for row in connection.execute(select(experiences))}
        assert rated == {OURS: True, THEIRS: True}


class TestTraining:
    def test_a_claim_joins_what_is_of_one_tenant(self, begun: LearnerStore) -> None:
        assert begun.experiences.ready_count(policy_version=policy_version(0)) == 1
        (experience,) = begun.experiences.claim(
            limit=9, policy_version=policy_version(0), reward_model_version=reward_version(0)
        )
        assert experience.rollout.response_text == "ours" and experience.rollout.meta.tenant == OURS
        assert (experience.thumb, experience.score_mean) == (True, 0.75)
        assert experience.features == make_features(1.0, 1.0, 1.0, 1.0)

    def test_their_thumb_does_not_rate_our_rollout(self, learner: LearnerStore) -> None:
        learner.commits.commit_first(learner.candidate(0))
        learner.clock.now = at(2)
        rollout, score, _ = facts_of(OURS, up=True, text="ours")
        ingest_facts(learner.database, learner.clock, [rollout, score, make_thumb("f1", rollout="r1", tenant=THEIRS)])
        assert learner.experiences.ready_count(policy_version=policy_version(0)) == 0
        assert learner.experiences.rated_examples() == []

    def test_moving_ours_leaves_theirs(self, begun: LearnerStore) -> None:
        begun.experiences.claim(limit=9, policy_version=policy_version(0), reward_model_version=reward_version(0))
        begun.experiences.discard(["r1"], reason="test")
        with begun.database.read() as connection:
            states = {row.tenant: (row.state, row.stale_reason) for row in connection.execute(select(experiences))}
        assert states == {OURS: ("stale", "test"), THEIRS: ("open", "")}

    def test_the_reward_model_learns_from_thumbs_with_features_of_their_own_tenant(self, begun: LearnerStore) -> None:
        (example,) = begun.experiences.rated_examples()
        assert (example.up, example.features) == (True, make_features(1.0, 1.0, 1.0, 1.0))


class TestQuestions:
    def released(self, begun: LearnerStore) -> LearnerStore:
        begun.experiences.claim(limit=9, policy_version=policy_version(0), reward_model_version=reward_version(0))
        for kind in (ReleaseKind.REWARD_MODEL, ReleaseKind.POLICY):
            candidate = begun.candidate(1, kind=kind, rollouts=("r1",), feedback=("f1",), reward_model=1)
            begun.candidates.submit(candidate)
            begun.commits.commit(candidate, Verdict(passed=True, lines=("ok",)))
        served = make_rollout("r2", seconds=30, versions=[(policy_version(1), 4)])
        ingest_facts(begun.database, begun.clock, [served])
        return begun

    def test_where_a_feedback_went(self, begun: LearnerStore) -> None:
        learner = self.released(begun)
        fates = FeedbackFates(learner.database, clock=learner.clock, join_window_s=60, orphan_after_s=60)
        ours, theirs = (fates.find(tenant=tenant, feedback_id="f1") for tenant in (OURS, THEIRS))
        assert (ours.state, ours.trained_into) == (FeedbackState.JOINED, (policy_version(1),))
        assert ours.reward_model_versions == (reward_version(1),)
        assert theirs.state is FeedbackState.ORPHANED
        assert (theirs.trained_into, theirs.reward_model_versions) == ((), ())
        assert theirs.trained_into_through_reward_model == ()
        with pytest.raises(NotFound):
            fates.find(tenant="third", feedback_id="f1")

    def test_what_is_stored(self, begun: LearnerStore) -> None:
        reference = FeedbackReference("r1", "rater-1", FeedbackKind.THUMB, "f1")
        asked = {
            tenant: stored_feedback(begun.database, tenant=tenant, references=[reference])
            for tenant in (OURS, THEIRS, "third")
        }
        assert asked == {OURS: [True], THEIRS: [True], "third": [False]}

    def test_uses_and_lives_of_releases(self, begun: LearnerStore) -> None:
        learner = self.released(begun)
        with learner.database.read() as connection:
            assert {(row.version, row.tenant) for row in connection.execute(select(uses))} == {
                (policy_version(1), OURS),
                (reward_version(1), OURS),
            }
        view, _ = ReleaseViews(learner.database).one(policy_version(0))
        assert (view.metrics["thumbs"], view.metrics["thumbs_up_rate"]) == (1, 1.0)

    def test_thumb_to_token(self, begun: LearnerStore) -> None:
        learner = self.released(begun)
        times = thumb_times(learner.database, now=at(1000))
        assert {time.accept_time: time.policy_version for time in times} == {at(2): policy_version(1), at(9): ""}
