"""Where feedback went, what a release became, and how long a thumb took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import select

from services.learner.ports import Verdict
from services.learner.releaser.outbox import mark_published
from services.learner.service.queries import MEASURED_THUMBS, LearnerQueries
from services.learner.service.remembered import TIMES_ITS_COST
from services.learner.state.acknowledgements import Acknowledgements, ReleaseAcknowledgement
from services.learner.state.features_retention import FeaturesRetention
from services.learner.state.pausing import Pausing
from services.learner.state.queries.feedback_fate import FeedbackFate, FeedbackFates
from services.learner.state.queries.release_lives import Life, read_lives
from services.learner.state.queries.releases import ReleaseViews
from services.learner.state.queries.thumb_to_token import NEVER, percentile, thumb_times, thumb_to_token
from services.shared.domain.errors import InvalidInput, NotFound
from services.shared.domain.feedback import FeedbackState, Rating
from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import Purpose
from services.shared.store.database import Database
from services.shared.store.tables import announcements
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

YES = Verdict(passed=True, lines=("ok",))


def fate(learner: LearnerStore, feedback_id: str, tenant: str = "default") -> FeedbackFate:
    fates = FeedbackFates(learner.database, clock=learner.clock, join_window_s=3600, orphan_after_s=3600)
    return fates.find(tenant=tenant, feedback_id=feedback_id)


def ingest(learner: LearnerStore, *facts: Any) -> None:
    ingest_facts(learner.database, learner.clock, list(facts))


def release(learner: LearnerStore, number: int, *, publish_at: float = 0.0, **values: Any) -> None:
    """Claims what it needs, commits, publishes."""
    candidate = learner.candidate(number, **values)
    if candidate.kind is ReleaseKind.POLICY and candidate.rollout_ids:
        learner.experiences.claim(
            limit=len(candidate.rollout_ids),
            policy_version=candidate.parent_version,
            reward_model_version=candidate.reward_model_version,
        )
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, YES)
    with learner.database.write() as connection:
        event_id = connection.scalar(
            select(announcements.c.event_id).where(announcements.c.version == candidate.version)
        )
        assert event_id is not None
        mark_published(connection, event_id, at(publish_at))


def learner_queries(learner: LearnerStore, clock: ManualClock) -> LearnerQueries:
    return LearnerQueries(
        learner.database,
        clock=clock,
        experiences=learner.experiences,
        candidates=learner.candidates,
        join_window_s=3600,
        orphan_after_s=3600,
    )


@pytest.fixture
def begun(learner: LearnerStore) -> LearnerStore:
    """Both releases 0 are there."""
    for kind in ReleaseKind:
        learner.commits.commit_first(learner.candidate(0, kind=kind))
    return learner


class TestFeedbackFate:
    def test_unknown_is_not_found_and_tenants_are_apart(self, learner: LearnerStore) -> None:
        ingest(learner, make_thumb("f1"))
        for feedback_id, tenant in (("f2", "default"), ("f1", "other")):
            with pytest.raises(NotFound):
                fate(learner, feedback_id, tenant)

    def test_waiting_then_joined(self, learner: LearnerStore) -> None:
        learner.clock.now = at(10)
        ingest(learner, make_thumb("f1"))
        assert fate(learner, "f1").state is FeedbackState.WAITING
        ingest(learner, make_rollout())
        assert fate(learner, "f1").state is FeedbackState.JOINED

    def test_orphaned_when_the_rollout_never_came_and_joined_when_it_did_after_all(self, learner: LearnerStore) -> None:
        learner.clock.now = at(2 + 3600.1)
        ingest(learner, make_thumb("f1"))
        assert fate(learner, "f1").state is FeedbackState.ORPHANED
        ingest(learner, make_rollout())
        assert fate(learner, "f1").state is FeedbackState.JOINED

    def test_late_is_event_time(self, learner: LearnerStore) -> None:
        ingest(learner, make_rollout(), make_thumb("f1", seconds=3601), make_thumb("f2", rater="x", seconds=3601.5))
        assert (fate(learner, "f1").state, fate(learner, "f2").state) == (FeedbackState.JOINED, FeedbackState.LATE)

    def test_late_says_whether_it_still_trains(self, begun: LearnerStore) -> None:
        begun.clock.now = at(3000)
        retention = FeaturesRetention(begun.database, clock=begun.clock, epoch=begun.epoch, keep_s=500)
        for name, seconds in (("old", 0), ("young", 2990)):
            rollout = make_rollout(name, seconds=seconds)
            ingest(begun, rollout, make_score(rollout, seconds=seconds + 1))
        assert run_round(retention) == 2
        ingest(begun, *(make_thumb(f"f-{name}", rollout=name, seconds=9000) for name in ("old", "young")))
        old, young = fate(begun, "f-old"), fate(begun, "f-young")
        assert old.state is young.state is FeedbackState.LATE
        assert "trains nothing" in old.reason and young.reason == "it trains the reward model alone"

    def test_superseded_and_retracted(self, learner: LearnerStore) -> None:
        ingest(learner, make_rollout(), make_thumb("f1", seconds=2), make_thumb("f2", up=False, seconds=3))
        assert (fate(learner, "f1").state, fate(learner, "f2").state) == (
            FeedbackState.SUPERSEDED,
            FeedbackState.JOINED,
        )
        ingest(learner, make_feedback("f3", retracted=True, seconds=4))
        assert (fate(learner, "f2").state, fate(learner, "f3").state) == (
            FeedbackState.SUPERSEDED,
            FeedbackState.RETRACTED,
        )

    def test_what_does_not_train_yet_says_so(self, learner: LearnerStore) -> None:
        ingest(learner, make_rollout(), make_feedback("f1", body=Rating(stars=3)))
        assert fate(learner, "f1").reason == "kept; the reward trainer does not use ratings yet"

    def test_which_versions_learned_from_it(self, begun: LearnerStore) -> None:
        rollout = make_rollout("r1")
        ingest(begun, rollout, make_score(rollout), make_thumb("f1", rollout="r1"))
        release(begun, 1, kind=ReleaseKind.REWARD_MODEL, rollouts=("r1",), feedback=("f1",))
        release(begun, 1, rollouts=("r1",), feedback=("f1",))
        release(begun, 2, reward_model=1)
        found = fate(begun, "f1")
        assert found.trained_into == (policy_version(1),)
        assert found.reward_model_versions == (reward_version(1),)
        assert found.trained_into_through_reward_model == (policy_version(2),)


class TestThumbToToken:
    def test_directly_and_through_the_reward_model_whichever_is_first(self, begun: LearnerStore) -> None:
        for name in ("r1", "r2", "r3"):
            rollout = make_rollout(name)
            ingest(begun, rollout, make_score(rollout), make_thumb(f"f-{name}", rollout=name, seconds=10))
        release(begun, 1, rollouts=("r1",), feedback=("f-r1",))
        release(
            begun, 1, kind=ReleaseKind.REWARD_MODEL, rollouts=("r1", "r2"), feedback=("f-r1", "f-r2"), publish_at=25
        )
        release(begun, 2, reward_model=1)
        ingest(begun, make_rollout("a1", seconds=30, versions=[(policy_version(1), 2)]))
        ingest(begun, make_rollout("a2", seconds=70, versions=[(policy_version(1), 2), (policy_version(2), 2)]))
        times = {time.feedback_id: time for time in thumb_times(begun.database, now=at(1000))}
        assert times["f-r1"].to_token_s == pytest.approx(20.1)
        assert times["f-r1"].policy_version == policy_version(1)
        assert times["f-r2"].to_token_s == pytest.approx(60.2)
        assert times["f-r2"].policy_version == policy_version(2)
        assert (times["f-r1"].to_reward_model_s, times["f-r2"].to_reward_model_s) == (15, 15)
        assert (times["f-r3"].to_token_s, times["f-r3"].to_reward_model_s) == (NEVER, NEVER)
        figures = thumb_to_token(begun.database, now=at(1000))
        assert figures.p50_s == pytest.approx(60.2) and figures.p99_s == NEVER
        assert (figures.thumbs, figures.served, figures.to_reward_model_p50_s) == (3, 2, 15)
        assert figures.censored_share == pytest.approx(1 / 3)

    def test_a_batch_that_did_not_know_the_thumb_did_not_learn_from_it(self, begun: LearnerStore) -> None:
        rollout = make_rollout("r1")
        ingest(begun, rollout, make_score(rollout))
        release(begun, 1, rollouts=("r1",))
        ingest(begun, make_thumb("f1", rollout="r1", seconds=50))
        ingest(begun, make_rollout("a1", seconds=60, versions=[(policy_version(1), 2)]))
        assert [time.to_token_s for time in thumb_times(begun.database, now=at(100))] == [NEVER]

    def test_what_no_user_got_is_not_served(self, begun: LearnerStore) -> None:
        rollout = make_rollout("r1")
        ingest(begun, rollout, make_score(rollout), make_thumb("f1", rollout="r1"))
        release(begun, 1, rollouts=("r1",), feedback=("f1",))
        ingest(begun, make_rollout("g1", versions=[(policy_version(1), 2)], purpose=Purpose.GATE))
        assert thumb_to_token(begun.database, now=at(100)).served == 0

    def test_replaced_thumbs_and_later_ones_do_not_count(self, begun: LearnerStore) -> None:
        ingest(begun, make_rollout(), make_thumb("f1", seconds=2), make_thumb("f2", up=False, seconds=3))
        ingest(begun, make_rollout("r2"), make_thumb("f3", rollout="r2", seconds=500))
        assert [time.feedback_id for time in thumb_times(begun.database, now=at(100))] == ["f2"]

    def test_percentiles_are_of_the_nearest_rank(self) -> None:
        assert percentile([], 0.5) == NEVER
        assert [percentile([3, 1, 2, 4], share) for share in (0.25, 0.5, 0.51, 0.99)] == [1, 2, 3, 4]


class TestReleaseViews:
    def test_pages_newest_first_without_a_gap(self, begun: LearnerStore) -> None:
        for number in range(1, 6):
            begun.clock.advance(1)
            release(begun, number)
        views = ReleaseViews(begun.database)
        seen: list[str] = []
        token = ""
        while True:
            page = views.page(kind=ReleaseKind.POLICY, page_size=2, page_token=token)
            seen += [view.release.version for view in page.releases]
            token = page.next_page_token
            if not token:
                break
        assert seen == [policy_version(number) for number in (5, 4, 3, 2, 1, 0)]
        assert len(views.page(kind=None, page_size=0, page_token="").releases) == 7

    @pytest.mark.parametrize(("size", "token"), [(201, ""), (-1, ""), (10, "nonsense"), (10, "1.")])
    def test_bad_paging_is_told(self, begun: LearnerStore, size: int, token: str) -> None:
        with pytest.raises(InvalidInput):
            ReleaseViews(begun.database).page(kind=None, page_size=size, page_token=token)

    def test_answers_and_thumbs_by_version(self, begun: LearnerStore) -> None:
        mixed = [(policy_version(0), 2), (policy_version(1), 2)]
        ingest(begun, make_rollout("r1", seconds=5), make_rollout("r2"), make_rollout("m", versions=mixed))
        ingest(begun, make_rollout("g", purpose=Purpose.GATE))
        ingest(begun, make_thumb("f1", rollout="r1"), make_thumb("f2", rollout="r2", up=False))
        ingest(begun, make_thumb("f3", rollout="m", up=False))
        view, trained_on = ReleaseViews(begun.database).one(policy_version(0))
        assert {name: view.metrics[name] for name in ("answers", "thumbs", "thumbs_up_rate")} == {
            "answers": 3,
            "thumbs": 2,
            "thumbs_up_rate": 0.5,
        }
        assert view.first_served_time == at(0.1)
        assert (trained_on, view.experiences) == ((), 0)
        with pytest.raises(NotFound):
            ReleaseViews(begun.database).one("p-0001-000077-00000000")

    def test_thumb_times_are_counted_once_for_status_and_all_releases(
        self, begun: LearnerStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rollout = make_rollout("r1")
        ingest(begun, rollout, make_score(rollout), make_thumb("f1", rollout="r1", seconds=10))
        release(begun, 1, rollouts=("r1",), feedback=("f1",))
        release(begun, 2)
        ingest(begun, make_rollout("a1", seconds=30, versions=[(policy_version(1), 2)]))
        counted: list[int | None] = []

        def counting(*args: Any, newest: int | None = None, **values: Any) -> Any:
            counted.append(newest)
            return thumb_times(*args, newest=newest, **values)

        monkeypatch.setattr("services.learner.service.queries.thumb_times", counting)
        queries = learner_queries(begun, clock)
        for _ in range(2):
            assert queries.status().thumb_to_token.p50_s == pytest.approx(20.1)
            page = queries.releases(kind=None, page_size=100, page_token="")
            p50s = {view.release.version: view.metrics.get("thumb_to_token_p50_s") for view in page.releases}
            assert p50s.pop(policy_version(1)) == pytest.approx(20.1)
            assert set(p50s.values()) == {None} and len(p50s) == 3
            assert queries.release(policy_version(1))[0].metrics["thumb_to_token_p50_s"] == pytest.approx(20.1)
        assert counted == [MEASURED_THUMBS]

    def test_lives_are_counted_once_for_all_releases_and_whoever_asks(
        self, begun: LearnerStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release(begun, 1)
        drawn = [make_rollout(f"r{n}", versions=[(policy_version(n), 4)]) for n in (0, 1)]
        ingest(begun, *drawn, make_thumb("f0", rollout="r0"), make_thumb("f1", rollout="r1", up=False))
        counted: list[Database] = []

        def counting(database: Database) -> Mapping[str, Life]:
            counted.append(database)
            clock.advance(1)
            return read_lives(database)

        monkeypatch.setattr("services.learner.service.queries.read_lives", counting)
        queries = learner_queries(begun, clock)
        for _ in range(2):
            page = queries.releases(kind=ReleaseKind.POLICY, page_size=100, page_token="")
            rates = {view.release.version: view.metrics["thumbs_up_rate"] for view in page.releases}
            assert rates == {policy_version(0): 1.0, policy_version(1): 0.0}
            assert queries.release(policy_version(1))[0].metrics["thumbs"] == 1.0
        assert counted == [begun.database]
        clock.advance(TIMES_ITS_COST)
        queries.releases(kind=None, page_size=100, page_token="")
        assert len(counted) == 2

    def test_status_counts(self, begun: LearnerStore, clock: ManualClock) -> None:
        rollout = make_rollout("r1")
        ingest(begun, rollout, make_score(rollout), make_thumb("f1", rollout="r1"), make_thumb("f9", rollout="gone"))
        status = learner_queries(begun, clock).status()
        totals = status.totals
        assert (status.policy_version, status.reward_model_version) == (policy_version(0), reward_version(0))
        assert (totals.rollouts, totals.slots, totals.thumbs_up, totals.thumbs_down) == (1, 2, 2, 0)
        assert (status.ready, totals.used, totals.stale, totals.waiting_for_rollout) == (1, 0, 0, 1)


class TestAcknowledgements:
    def said(self, **values: Any) -> ReleaseAcknowledgement:
        known: dict[str, Any] = {"replica_id": "g-0", "kind": ReleaseKind.POLICY, "epoch": 1, "sequence": 1}
        return ReleaseAcknowledgement(**{**known, "version": policy_version(0), **values})

    def test_the_last_word_of_each_replica_counts(self, begun: LearnerStore) -> None:
        release(begun, 1)
        book = Acknowledgements(begun.database, clock=begun.clock)
        book.release(self.said())
        book.release(self.said(replica_id="g-1"))
        book.release(self.said(sequence=2, version=policy_version(1)))
        book.release(self.said())  # late
        assert begun.candidates.acknowledged_by(policy_version(1)) == {"g-0"}
        assert begun.candidates.acknowledged_by(policy_version(0)) == {"g-1"}

    def test_a_failed_stage_leaves_the_old_version_serving(self, begun: LearnerStore) -> None:
        release(begun, 1)
        book = Acknowledgements(begun.database, clock=begun.clock)
        book.release(self.said())
        book.release(self.said(sequence=2, version=policy_version(1), stage_error="disk full"))
        assert begun.candidates.acknowledged_by(policy_version(0)) == {"g-0"}
        assert begun.candidates.acknowledged_by(policy_version(1)) == frozenset()

    def test_what_was_never_announced_is_refused(self, begun: LearnerStore) -> None:
        book = Acknowledgements(begun.database, clock=begun.clock)
        for wrong in ({"sequence": 9}, {"epoch": 7}, {"version": policy_version(3)}):
            with pytest.raises(NotFound):
                book.release(self.said(**wrong))
        with pytest.raises(InvalidInput):
            book.release(self.said(replica_id=""))
        with pytest.raises(NotFound):
            book.control(replica_id="g-0", control_id="unknown")


def test_pausing_outlives_a_restart(database: Database, clock: ManualClock) -> None:
    pausing = Pausing(database, clock=clock)
    assert not pausing.paused
    pausing.set(True, reason="looking")
    pausing.set(True, reason="still looking")
    assert Pausing(database, clock=clock).paused
    pausing.set(False, reason="")
    assert not Pausing(database, clock=clock).paused
