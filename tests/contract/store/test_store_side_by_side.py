"""Several learners at one store: they claim side by side, migrate once, and a deadlock is told as what it is."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from services.learner.state.fencing import LEADER, fenced_write
from services.shared.domain.errors import Fenced, ThumbloopError, Unavailable
from services.shared.store.database import Database, open_database
from services.shared.store.migrate import migrate
from services.shared.store.tables import experiences, flags
from tests.support.facts import START, make_rollout, make_score, make_thumb, policy_version, reward_version
from tests.support.learner_store import LearnerStore, ManualClock, ingest_facts
from tests.support.patience import eventually
from tests.support.postgres import PostgresServer
from tests.support.stores import PostgresStores, Stores

NAMES = [f"r{number:02}" for number in range(12)]


@pytest.fixture
def on_postgresql(postgres: PostgresServer) -> Iterator[Stores]:
    stores = PostgresStores(postgres)
    yield stores
    stores.close()


def filled(database: Database, clock: ManualClock) -> LearnerStore:
    learner = LearnerStore(database, clock)
    learner.commits.commit_first(learner.candidate(0))
    for number, name in enumerate(NAMES):
        rollout = make_rollout(name, seconds=number)
        thumb = make_thumb(f"f-{name}", rollout=name, seconds=number + 2)
        ingest_facts(database, clock, [rollout, make_score(rollout), thumb])
    return learner


def claim(learner: LearnerStore, limit: int) -> list[str]:
    found = learner.experiences.claim(
        limit=limit, policy_version=policy_version(0), reward_model_version=reward_version(0)
    )
    return [experience.rollout.rollout_id for experience in found]


def same_epoch(learner: LearnerStore, database: Database) -> LearnerStore:
    """Another learner of the same epoch, on connections of its own."""
    other = LearnerStore(database, learner.clock, take_lease=False)
    other.take_over(learner.epoch)
    return other


@contextmanager
def in_background(act: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Runs it beside the block, and waits for it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except ThumbloopError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield failures
    thread.join(60)
    assert not thread.is_alive()


class TestClaims:
    def test_while_one_claim_is_under_way_another_gets_other_rows_at_once(
        self, on_postgresql: Stores, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first claim stops in the middle of its transaction; the second must not wait for it."""
        one = filled(on_postgresql.open(), clock)
        two = same_epoch(one, on_postgresql.open())
        holding, go_on = threading.Event(), threading.Event()
        retire = one.experiences._retire

        def stop_there(*arguments: Any) -> None:
            holding.set()
            assert go_on.wait(60)
            retire(*arguments)

        monkeypatch.setattr(one.experiences, "_retire", stop_there)
        first: list[str] = []
        with in_background(lambda: first.extend(claim(one, 5))) as failures:
            assert holding.wait(60)
            second = claim(two, 5)
            go_on.set()
        assert failures == []
        assert first == NAMES[:-6:-1]
        assert second == NAMES[-6:-11:-1]
        assert sorted([*first, *second, *claim(two, 9)]) == NAMES

    def test_rows_that_ingest_is_writing_are_passed_over(self, on_postgresql: Stores, clock: ManualClock) -> None:
        learner = filled(on_postgresql.open(), clock)
        with on_postgresql.open().write() as connection:
            connection.execute(update(experiences).where(experiences.c.rollout_id.in_(NAMES[6:])).values(rated=True))
            assert sorted(claim(learner, 12)) == NAMES[:6]
        assert sorted(claim(learner, 12)) == NAMES[6:]

    def test_a_new_epoch_waits_for_claims_under_way_and_then_fences(
        self, on_postgresql: Stores, clock: ManualClock
    ) -> None:
        learner = filled(on_postgresql.open(), clock)
        under_way, taken = threading.Event(), threading.Event()

        def take() -> None:
            assert under_way.wait(60)
            LearnerStore(on_postgresql_again, clock)
            taken.set()

        on_postgresql_again = on_postgresql.open()
        with in_background(take) as failures:
            with fenced_write(on_postgresql.open(), learner.epoch, alone=False) as connection:
                under_way.set()
                held = connection.scalar(select(experiences.c.rollout_id).limit(1))
                assert held
                eventually(lambda: someone_waits_for_a_lock(on_postgresql_again), within_s=60)
                assert not taken.is_set()
            assert taken.wait(60)
        assert failures == []
        with pytest.raises(Fenced):
            claim(learner, 1)
        with pytest.raises(Fenced):
            learner.leases.renew(LEADER, learner.epoch)


def someone_waits_for_a_lock(database: Database) -> bool:
    """As PostgreSQL says of its processes."""
    with database.read() as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return bool(connection.scalar(text(waiting)))


class TestTrouble:
    def test_a_deadlock_ends_with_one_told_to_come_again(self, on_postgresql: Stores) -> None:
        one, two = on_postgresql.open(), on_postgresql.open()
        with one.write() as connection:
            for name in "ab":
                connection.execute(insert(flags).values(name=name, value="", reason="", change_time=START))
        both_hold = threading.Barrier(2)

        def lock(database: Database, names: str) -> None:
            with database.write() as connection:
                for name in names:
                    connection.execute(update(flags).where(flags.c.name == name).values(value=names))
                    if name == names[0]:
                        both_hold.wait(60)

        told: list[BaseException] = []
        with in_background(lambda: lock(two, "ba")) as failures:
            try:
                lock(one, "ab")
            except Unavailable as error:
                told.append(error)
        told += failures
        assert [(error.reason, error.retry_after) for error in told if isinstance(error, Unavailable)] == [
            ("STORE_UNAVAILABLE", 0.5)
        ]
        with one.read() as connection:
            assert set(connection.scalars(select(flags.c.value))) in ({"ab"}, {"ba"})

    def test_connections_that_were_cut_are_told_and_made_again(
        self, on_postgresql: Stores, postgres: PostgresServer
    ) -> None:
        database = on_postgresql.open()
        name = database.engine.url.database
        with pytest.raises(Unavailable), database.write() as connection:
            connection.execute(select(flags)).all()
            postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            connection.execute(select(flags)).all()
        with database.read() as connection:
            assert connection.execute(select(flags)).all() == []


def test_learners_that_start_at_once_migrate_once(stores: Stores) -> None:
    databases = [stores.open_empty() for _ in range(4)]
    together = threading.Barrier(len(databases))
    failures: list[BaseException] = []

    def start(database: Database) -> None:
        try:
            together.wait(60)
            migrate(database)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    with databases[0].read() as connection:
        assert connection.execute(select(flags)).all() == []
        versions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
    assert len(versions) == 1


def test_a_new_file_whose_writer_holds_it_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses at once to turn such a file to WAL, whatever its busy timeout is."""
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("CREATE TABLE made_by_another (name TEXT)")
        writer.execute("BEGIN IMMEDIATE")
        database = open_database(f"sqlite:///{path}")
        freed = threading.Timer(0.5, writer.execute, ["COMMIT"])
        freed.start()
        try:
            with database.read() as connection:
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        finally:
            freed.join()
            database.close()
