"""The releaser: release 0, the gate, the outbox, repeats, leadership."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from services.learner.forgetting.orders import OrderOutbox
from services.learner.ports import Candidate
from services.learner.releaser.announcer import AT_FIRST, SELDOM, Announcer
from services.learner.releaser.gate import judge
from services.learner.releaser.leadership import Leadership
from services.learner.releaser.outbox import Outbox
from services.learner.releaser.releaser import FirstRelease, Releaser
from services.learner.state.acknowledgements import Acknowledgements, ReleaseAcknowledgement
from services.learner.state.features_retention import FeaturesRetention
from services.learner.state.fencing import LEADER
from services.shared.contracts.policies import decode_announcement
from services.shared.contracts.topics import POLICIES
from services.shared.domain.errors import Fenced, Unavailable
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind, ReleaseState
from services.shared.settings.model import GateSettings
from services.shared.store.database import Database
from services.shared.store.tables import announcements, leases, outbox, releases, replicas
from services.shared.store.upsert import upsert
from tests.support.facts import policy_version, reward_version
from tests.support.learner_store import METRICS, LearnerStore, ManualClock
from tests.support.patience import eventually
from tests.support.small_log import SmallLog

REPEAT_S = 30.0


class Office:
    """A releaser with all that it needs, as one process life."""

    def __init__(self, database: Database, clock: ManualClock, log: SmallLog) -> None:
        self.leadership = Leadership(database, clock=clock, holder="learner-0", ttl_s=10)
        self.leadership.take(timeout_s=0)
        self.learner = LearnerStore(database, clock, take_lease=False)
        self.learner.take_over(self.leadership.epoch)
        publisher = log.publisher("releaser")
        ids = iter(range(10_000))
        self.outbox = Outbox(database, publisher, clock=clock, epoch=self.leadership.epoch)
        self.failures: list[BaseException] = []
        self.releaser = Releaser(
            leadership=self.leadership,
            candidates=self.learner.candidates,
            commits=self.learner.commits,
            outbox=self.outbox,
            announcer=Announcer(
                database,
                publisher,
                clock=clock,
                new_id=lambda: f"repeat-{self.leadership.epoch}-{next(ids)}",
                interval_s=REPEAT_S,
            ),
            orders=OrderOutbox(database, publisher, deployment="test", clock=clock, epoch=self.leadership.epoch),
            retention=[FeaturesRetention(database, clock=clock, epoch=self.leadership.epoch, keep_s=3600.0)],
            gate=GateSettings(),
            first_releases={kind: self._first(kind) for kind in ReleaseKind},
            on_failure=self.failures.append,
        )

    def _first(self, kind: ReleaseKind) -> FirstRelease:
        return lambda epoch: self.learner.candidate(0, kind=kind)

    def settle(self) -> None:
        for _ in range(3):
            self.releaser.step()

    def submit(self, number: int, **values: Any) -> Candidate:
        candidate = self.learner.candidate(number, **values)
        self.learner.candidates.submit(candidate)
        return candidate


@pytest.fixture
def log() -> SmallLog:
    return SmallLog([POLICIES])


@pytest.fixture
def office(database: Database, clock: ManualClock, log: SmallLog) -> Office:
    return Office(database, clock, log)


def announced(log: SmallLog) -> list[Announcement]:
    return [decode_announcement(record.value) for record in log.values(POLICIES)]


def policies(log: SmallLog) -> list[tuple[int, int, str]]:
    found = [item for item in announced(log) if item.kind is ReleaseKind.POLICY]
    return sorted((item.epoch, item.sequence, item.version) for item in found)


def repeats(log: SmallLog, kind: ReleaseKind) -> list[Announcement]:
    return [item for item in announced(log) if item.kind is kind and item.reason is AnnouncementReason.REPEAT]


class TestFirstReleases:
    def test_one_of_each_kind_is_published_at_the_first_start(self, office: Office, log: SmallLog) -> None:
        office.settle()
        assert {(item.key, item.version) for item in announced(log)} == {
            ("policy/1/1", policy_version(0)),
            ("reward_model/1/1", reward_version(0)),
        }
        live = office.learner.candidates.live(ReleaseKind.POLICY)
        assert live is not None and live.state is ReleaseState.PUBLISHED and live.publish_time is not None

    def test_a_later_start_announces_the_live_state_under_its_epoch(
        self, office: Office, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        office.settle()
        later = Office(database, clock, log)
        later.settle()
        assert policies(log) == [(1, 1, policy_version(0)), (2, 2, policy_version(0))]


class TestGate:
    def settings(self) -> GateSettings:
        return GateSettings(max_kl_nats=6, min_distinct2_ratio=0.7, min_entropy_ratio=0.3)

    def verdict(self, candidate: Candidate) -> bool:
        return judge(candidate, settings=self.settings(), epoch=1, live_version=policy_version(0)).passed

    def test_a_good_candidate_passes_with_a_line_a_check(self, learner: LearnerStore) -> None:
        found = judge(learner.candidate(1), settings=self.settings(), epoch=1, live_version=policy_version(0))
        assert found.passed and len(found.lines) == 6

    @pytest.mark.parametrize("metric", ["finite", "kl_per_answer", "distinct2_ratio", "entropy_ratio"])
    def test_what_is_missing_or_no_number_refuses(self, learner: LearnerStore, metric: str) -> None:
        candidate = learner.candidate(1)
        missing = {name: value for name, value in METRICS.items() if name != metric}
        assert not self.verdict(replace(candidate, metrics=missing))
        assert not self.verdict(replace(candidate, metrics=METRICS | {metric: float("nan")}))

    @pytest.mark.parametrize(
        ("metric", "good", "bad"),
        [("finite", 1, 0), ("kl_per_answer", 6, 6.01), ("distinct2_ratio", 0.7, 0.69), ("entropy_ratio", 0.3, 0.29)],
    )
    def test_bounds(self, learner: LearnerStore, metric: str, good: float, bad: float) -> None:
        candidate = learner.candidate(1)
        assert self.verdict(replace(candidate, metrics=METRICS | {metric: good}))
        assert not self.verdict(replace(candidate, metrics=METRICS | {metric: bad}))

    def test_another_epochs_candidate_and_one_of_a_dead_parent_are_refused(self, learner: LearnerStore) -> None:
        assert not self.verdict(replace(learner.candidate(1), epoch=2))
        assert not self.verdict(learner.candidate(2, parent=1))

    def test_a_reward_model_needs_a_test(self, learner: LearnerStore) -> None:
        candidate = learner.candidate(1, kind=ReleaseKind.REWARD_MODEL)

        def passes(metrics: dict[str, float]) -> bool:
            tried = replace(candidate, metrics=metrics)
            return judge(tried, settings=self.settings(), epoch=1, live_version=reward_version(0)).passed

        assert passes({"finite": 1, "auroc": 0.5})
        assert not passes({"finite": 1})
        assert not passes({"finite": 1, "auroc": float("nan")})
        assert not passes({"finite": 0, "auroc": 0.9})

    def test_the_verdict_reaches_the_trainer(self, office: Office) -> None:
        office.settle()
        good, bad = office.submit(1), office.submit(2, parent=1, metrics=METRICS | {"kl_per_answer": 60})
        office.settle()
        first, second = (office.learner.candidates.verdict(candidate.version) for candidate in (good, bad))
        assert first is not None and first.passed
        assert second is not None and not second.passed
        refused = [line for line in second.lines if line.startswith("REFUSED")]
        assert len(refused) == 1 and refused[0].startswith("REFUSED kl_per_answer 60")


class TestOutbox:
    def test_a_crash_between_commit_and_publish_loses_and_repeats_nothing(
        self, office: Office, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        office.settle()
        candidate = office.submit(1)
        office.releaser.decide(candidate)  # committed; the process dies before the outbox runs
        assert policies(log) == [(1, 1, policy_version(0))]
        Office(database, clock, log).settle()
        assert policies(log) == [(1, 1, policy_version(0)), (1, 2, policy_version(1)), (2, 3, policy_version(1))]
        with database.read() as connection:
            assert connection.scalars(select(outbox.c.event_id).where(outbox.c.publish_time.is_(None))).all() == []
            row = connection.execute(select(releases).where(releases.c.version == candidate.version)).one()
        assert row.state == "published"

    def test_a_crash_between_publish_and_mark_sends_the_very_same_again(
        self, office: Office, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        office.settle()
        office.releaser.decide(office.submit(1))
        office.outbox.step()  # sent, and acknowledged, but not marked: the process dies here
        Office(database, clock, log).settle()
        of_release = [item for item in announced(log) if (item.epoch, item.sequence) == (1, 2)]
        assert len(of_release) == 2 and of_release[0] == of_release[1]
        greatest = max((item for item in announced(log) if item.kind is ReleaseKind.POLICY), key=lambda a: a.order)
        assert greatest.version == policy_version(1)

    def test_waits_while_kafka_is_away(self, office: Office, log: SmallLog) -> None:
        log.away = True
        office.settle()
        assert announced(log) == []
        live = office.learner.candidates.live(ReleaseKind.POLICY)
        assert live is not None and live.state is ReleaseState.COMMITTED
        log.away = False
        office.settle()
        assert policies(log) == [(1, 1, policy_version(0))]

    def test_the_live_state_is_said_again_at_intervals(
        self, office: Office, log: SmallLog, clock: ManualClock, database: Database
    ) -> None:
        office.settle()
        clock.advance(REPEAT_S)
        office.settle()
        repeats = [item for item in announced(log) if item.reason is AnnouncementReason.REPEAT]
        assert {(item.key, item.version) for item in repeats} == {
            ("policy/1/1", policy_version(0)),
            ("reward_model/1/1", reward_version(0)),
        }
        with database.read() as connection:
            assert len(connection.execute(select(announcements)).all()) == 2

    def test_what_all_that_live_have_acknowledged_is_repeated_rarely(
        self, office: Office, log: SmallLog, clock: ManualClock, database: Database
    ) -> None:
        office.settle()
        self.heard(database, clock, "gateway-0", "generator-0", "reward-0", "reward-1")
        self.acknowledged(database, clock, "generator-0", ReleaseKind.POLICY, policy_version(0))
        for name in ("reward-0", "reward-1"):
            self.acknowledged(database, clock, name, ReleaseKind.REWARD_MODEL, reward_version(0))
        turns = int(3 * SELDOM / timedelta(seconds=REPEAT_S))
        for _ in range(turns):
            clock.advance(REPEAT_S)
            office.releaser.step()
        assert len(repeats(log, ReleaseKind.POLICY)) <= AT_FIRST + 3
        assert len(repeats(log, ReleaseKind.REWARD_MODEL)) <= AT_FIRST + 3
        assert repeats(log, ReleaseKind.POLICY)[-1].meta.event_time > clock() - SELDOM

    def test_whoever_lives_and_lags_behind_is_told_again_and_again(
        self, office: Office, log: SmallLog, clock: ManualClock, database: Database
    ) -> None:
        office.settle()
        for name in ("generator-0", "generator-1", "generator-gone"):
            self.acknowledged(database, clock, name, ReleaseKind.POLICY, policy_version(0))
        office.releaser.decide(office.submit(1))
        office.settle()
        for name in ("generator-0", "generator-1"):
            self.heard(database, clock, name)
        self.acknowledged(database, clock, "generator-0", ReleaseKind.POLICY, policy_version(1), sequence=2)

        def told(turns: int) -> int:
            before = len(repeats(log, ReleaseKind.POLICY))
            for _ in range(turns):
                clock.advance(REPEAT_S)
                self.heard(database, clock, "generator-0", "generator-1")
                office.releaser.step()
            return len(repeats(log, ReleaseKind.POLICY)) - before

        assert told(AT_FIRST + 5) == AT_FIRST + 5
        self.acknowledged(database, clock, "generator-1", ReleaseKind.POLICY, policy_version(1), sequence=2)
        assert told(5) == 0

    def heard(self, database: Database, clock: ManualClock, *names: str) -> None:
        rows = [{"replica_id": name, "seen_time": clock()} for name in names]
        with database.write() as connection:
            upsert(connection, replicas, rows, update=("seen_time",))

    def acknowledged(
        self, database: Database, clock: ManualClock, name: str, kind: ReleaseKind, version: str, sequence: int = 1
    ) -> None:
        Acknowledgements(database, clock=clock).release(
            ReleaseAcknowledgement(replica_id=name, kind=kind, epoch=1, sequence=sequence, version=version)
        )

    def test_a_rollback_is_a_new_announcement_of_an_old_version(self, office: Office, log: SmallLog) -> None:
        office.settle()
        office.releaser.decide(office.submit(1))
        office.releaser.roll_back(policy_version(0))
        office.settle()
        assert policies(log)[-1] == (1, 3, policy_version(0))


class TestLeadership:
    def test_a_replaced_leader_stops_with_a_word(
        self, office: Office, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        office.settle()
        Office(database, clock, log)
        clock.advance(5)
        with pytest.raises(Fenced):
            office.releaser.step()
        office.releaser.start()
        eventually(lambda: office.failures, what="it stops")
        office.releaser.drain(10)
        assert isinstance(office.failures[0], Fenced)

    def test_another_holder_waits_for_the_lease(self, office: Office, database: Database, clock: ManualClock) -> None:
        other = Leadership(database, clock=clock, holder="learner-1", ttl_s=10)
        with pytest.raises(Unavailable):
            other.take(timeout_s=0)
        office.releaser.stop()
        assert other.take(timeout_s=0) == office.leadership.epoch + 1
        with database.read() as connection:
            assert connection.scalar(select(leases.c.holder).where(leases.c.name == LEADER)) == "learner-1"

    def test_it_is_kept_while_the_rest_of_the_process_is_built(
        self, office: Office, database: Database, clock: ManualClock
    ) -> None:
        """Waiting for the trainer's post may take longer than the lease lasts."""
        other = Leadership(database, clock=clock, holder="learner-1", ttl_s=10)

        def until() -> Any:
            with database.read() as connection:
                return connection.scalar(select(leases.c.until).where(leases.c.name == LEADER))

        with office.leadership.kept(look_s=0.01):
            for _ in range(3):
                clock.advance(9)
                eventually(lambda: until() == clock() + timedelta(seconds=10), what="it is renewed")
                with pytest.raises(Unavailable):
                    other.take(timeout_s=0)
        clock.advance(10)
        assert other.take(timeout_s=0) == office.leadership.epoch + 1

    def test_keeping_ends_quietly_when_another_has_taken_over(
        self, office: Office, database: Database, clock: ManualClock
    ) -> None:
        """Whoever begins to work under it is told."""
        later = Leadership(database, clock=clock, holder="learner-0", ttl_s=10)
        later.take(timeout_s=0)
        with office.leadership.kept(look_s=0.01):
            clock.advance(9)
        with pytest.raises(Fenced):
            office.releaser.step()
