"""Ingest processes and a deletion at one PostgreSQL, at the same moment: nobody waits in a circle, no statement that
another process is writing is overlooked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, select, text

from services.learner.ingest import batch
from services.learner.ingest.locking import lock_experiences
from services.learner.ingest.store_feedback import store_feedback
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.store.database import Database
from services.shared.store.tables import experiences, feedback_slots
from tests.support.facts import make_thumb
from tests.support.forgetting_world import ALICE, BOB, HERS, alices_facts, forget, traces
from tests.support.learner_store import LearnerStore, ManualClock, append_fact, ingest_facts, make_ingest
from tests.support.patience import eventually
from tests.support.postgres import PostgresServer
from tests.support.small_log import SmallLog
from tests.support.stores import PostgresStores


@pytest.fixture
def stores(postgres: PostgresServer) -> Iterator[PostgresStores]:
    opened = PostgresStores(postgres)
    yield opened
    opened.close()


def somebody_waits(database: Database) -> bool:
    """Whether a transaction of this store waits for another's lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.read() as connection:
        return bool(connection.scalar(text(query)))


def test_a_deletion_waits_for_the_batch_that_holds_its_rows(
    stores: PostgresStores, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch stops when it has locked the person's experiences; the deletion begins; then the batch goes on."""
    database = stores.open()
    learner = LearnerStore(stores.open(), clock)
    ingest_facts(database, clock, alices_facts())
    log = SmallLog([ROLLOUTS, FEEDBACK, SCORES], partitions=1)
    append_fact(log, make_thumb("b-late", rollout=HERS[0], rater=BOB, seconds=30))
    ingest = make_ingest(log, database, clock)
    holding, go_on = threading.Event(), threading.Event()

    def stop_there(connection: Connection, touched: Iterable[str]) -> None:
        lock_experiences(connection, touched)
        holding.set()
        assert go_on.wait(60)

    monkeypatch.setattr(batch, "lock_experiences", stop_there)
    with ThreadPoolExecutor(2) as pool:
        read = pool.submit(ingest.step)
        assert holding.wait(60)
        forgotten = pool.submit(forget, learner)
        try:
            eventually(lambda: somebody_waits(database), within_s=60, what="the deletion waits")
        finally:
            go_on.set()
        assert read.result(60) == 1
        assert forgotten.result(60).rollouts == len(HERS)
    ingest.stop()
    assert traces(database, (ALICE, "b-late"), but=frozenset({"tombstones", "controls", "ingest_offsets"})) == []


def test_the_stronger_of_two_statements_written_at_once_holds_their_slot(
    stores: PostgresStores, clock: ManualClock
) -> None:
    """Their rollout has not come, so that there is no row of it yet; the weaker one is committed last."""
    database, another = stores.open(), stores.open()
    stronger, weaker = (make_thumb(f"f{number}", rollout="r1", revision=number) for number in (2, 1))
    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            store_feedback(connection, [stronger])
            second = pool.submit(ingest_facts, another, clock, [weaker])
            eventually(lambda: second.done() or somebody_waits(another), within_s=60, what="the second waits")
        second.result(60)
    with database.read() as connection:
        slot = connection.execute(select(feedback_slots)).one()
        assert connection.execute(select(experiences)).one().rated
    assert (slot.feedback_id, slot.revision) == ("f2", 2)
