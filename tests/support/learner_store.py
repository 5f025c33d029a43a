"""A learner's store with a clock of its own, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path

from services.learner.ingest.ingest import Ingest
from services.learner.ingest.store_feedback import store_feedback
from services.learner.ingest.store_rollouts import store_rollouts
from services.learner.ingest.store_scores import store_scores
from services.learner.ports import Candidate
from services.learner.state.candidates import SqlCandidates
from services.learner.state.claims import SqlExperienceStore
from services.learner.state.fencing import LEADER
from services.learner.state.release_commits import Origin, ReleaseCommits
from services.shared.bus.interface import Bus, Record
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.scores import encode_score
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.domain.feedback import Feedback
from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import Rollout
from services.shared.domain.score import Score
from services.shared.store.database import Database, open_database
from services.shared.store.leases import Leases
from services.shared.store.migrate import migrate
from tests.support.facts import BASE_DIGEST, DEPLOYMENT, TENANT, at, policy_version, reward_version
from tests.support.small_log import SmallLog

Fact = Rollout | Feedback | Score

METRICS = {"finite": 1.0, "kl_per_answer": 1.0, "distinct2_ratio": 0.9, "entropy_ratio": 0.8, "auroc": 0.75}
"""Of a candidate that passes the gate."""


class ManualClock:
    """Time that moves when it is told to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.now: datetime = at(seconds)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def open_test_database(folder: Path, name: str = "store.db") -> Database:
    """A store with all tables; one that is there already is opened as it is."""
    path = folder / name
    if not path.exists():
        path.write_bytes(_empty_store())
    return open_database(f"sqlite:///{path}")


@cache
def _empty_store() -> bytes:
    """The file of a store that has just been migrated (migrating takes longer than most tests)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        database = open_database(f"sqlite:///{path}")
        migrate(database)
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        return path.read_bytes()


def counting_ids() -> Iterator[str]:
    return (f"id-{number}" for number in count(1))


class LearnerStore:
    """One leader's view of a store, and what it takes to fill it."""

    def __init__(self, database: Database, clock: ManualClock, *, take_lease: bool = True) -> None:
        self.database = database
        self.clock = clock
        self.leases = Leases(database, clock=clock, holder="learner-0", ttl_s=10.0)
        if take_lease:
            self.take_over(self.leases.take(LEADER))

    def take_over(self, epoch: int) -> None:
        """Works under this epoch from now on."""
        self.epoch = epoch
        ids = counting_ids()
        origin = Origin(
            deployment=DEPLOYMENT, tenant=TENANT, clock=self.clock, new_id=lambda: f"epoch{epoch}-{next(ids)}"
        )
        self.experiences = SqlExperienceStore(
            self.database,
            clock=self.clock,
            epoch=epoch,
            max_staleness=2,
            unrated_wait_s=60.0,
            join_window_s=3600.0,
            claim_lease_s=600.0,
        )
        self.candidates = SqlCandidates(self.database, clock=self.clock, epoch=epoch)
        self.commits = ReleaseCommits(self.database, origin=origin, epoch=epoch)

    def candidate(
        self,
        number: int,
        *,
        kind: ReleaseKind = ReleaseKind.POLICY,
        parent: int | None = None,
        rollouts: tuple[str, ...] = (),
        feedback: tuple[str, ...] = (),
        reward_model: int = 0,
        metrics: dict[str, float] | None = None,
    ) -> Candidate:
        name = policy_version if kind is ReleaseKind.POLICY else reward_version
        version = name(number)
        before = number - 1 if parent is None else parent
        return Candidate(
            version=version,
            kind=kind,
            epoch=self.epoch,
            number=number,
            parent_version="" if number == 0 else name(before),
            checkpoint_path=f"{kind}/{self.epoch}/{version}",
            manifest_sha256="c" * 64,
            base_model_digest=BASE_DIGEST,
            reward_model_version=reward_version(reward_model) if kind is ReleaseKind.POLICY else "",
            rollout_ids=rollouts,
            feedback_ids=feedback,
            metrics=METRICS if metrics is None else metrics,
        )


def append_fact(log: SmallLog, fact: Fact) -> Record:
    """Puts a fact where its owner would publish it."""
    if isinstance(fact, Rollout):
        return log.append(ROLLOUTS, fact.rollout_id, encode_rollout(fact))
    if isinstance(fact, Score):
        return log.append(SCORES, fact.rollout_id, encode_score(fact))
    return log.append(FEEDBACK, fact.rollout_id, encode_feedback(fact))


def make_ingest(
    bus: Bus,
    database: Database,
    clock: ManualClock,
    *,
    holder: str = "ingest-0",
    embedded: bool = False,
    max_records: int = 500,
) -> Ingest:
    failures: list[BaseException] = []
    return Ingest(
        bus=bus,
        database=database,
        deployment=DEPLOYMENT,
        clock=clock,
        holder=holder,
        lease_ttl_s=10.0,
        embedded=embedded,
        on_failure=failures.append,
        max_records=max_records,
    )


def ingest_facts(database: Database, clock: ManualClock, facts: Sequence[Fact]) -> None:
    """Writes facts to a store as ingest would, without a log."""
    with database.write() as connection:
        store_rollouts(connection, [fact for fact in facts if isinstance(fact, Rollout)])
        store_scores(connection, [fact for fact in facts if isinstance(fact, Score)])
        store_feedback(connection, [fact for fact in facts if isinstance(fact, Feedback)])
