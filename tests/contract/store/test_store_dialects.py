"""The two databases hold the same: byte for byte, in the same order, whatever a text is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from services.learner.state.dump import canonical_dump, dump_digest
from services.shared.store.database import Database
from services.shared.store.migrate import migrate
from services.shared.store.tables import feedback_slots, flags, metadata, rollouts
from services.shared.store.upsert import upsert
from tests.support import events
from tests.support.facts import START, make_rollout, make_thumb
from tests.support.learner_store import Fact, ManualClock, ingest_facts
from tests.support.postgres import PostgresServer
from tests.support.stores import PostgresStores, SqliteStores, Stores

NASTY = [
    "",
    "a",
    "A",
    "ä",
    "z",
    "Z",
    "\0",
    "a\0b",
    "\ufdd0",
    "\ufdd00",
    "\0\ufdd01",
    "\U0001f44d",
    "\uffff",
    " a",
    "_",
    "'",
]


@pytest.fixture
def both(tmp_path: Path, postgres: PostgresServer) -> Iterator[tuple[Stores, Stores]]:
    pair = (SqliteStores(tmp_path), PostgresStores(postgres))
    yield pair
    for stores in pair:
        stores.close()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(facts=st.lists(events.rollouts | events.feedbacks | events.scores, max_size=8))
def test_the_same_events_give_the_same_dump(both: tuple[Stores, Stores], clock: ManualClock, facts: list[Fact]) -> None:
    dumps = []
    for stores in both:
        database = stores.open()
        with database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        ingest_facts(database, clock, facts)
        dumps.append((canonical_dump(database), dump_digest(database)))
        database.close()
    assert dumps[0] == dumps[1]


def test_text_is_ordered_by_code_points_and_comes_back_as_it_was(database: Database) -> None:
    rows = [{"name": name, "value": name, "reason": "", "change_time": START} for name in NASTY]
    with database.write() as connection:
        upsert(connection, flags, rows, update=("value",))
        found = connection.execute(select(flags.c.name, flags.c.value).order_by(flags.c.name)).all()
        smaller = set(connection.scalars(select(flags.c.name).where(flags.c.name < "a")))
    assert {(row.name, row.value) for row in found} == {(name, name) for name in NASTY}
    plain = [row.name for row in found if not {"\0", "\ufdd0"} & set(row.name)]
    assert plain == sorted(plain)
    assert {"A", "Z", "_", " a", "'", ""} <= smaller and "ä" not in smaller


def test_every_text_column_says_so_on_postgresql(postgres: PostgresServer) -> None:
    """Whatever collation the database has: the columns have their own."""
    stores = PostgresStores(postgres)
    query = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C' AND table_name <> 'alembic_version'"
    )
    with stores.open().read() as connection:
        assert connection.exec_driver_sql(query).all() == []
    stores.close()


def test_a_model_and_a_client_may_write_nul(database: Database, clock: ManualClock) -> None:
    rollout = make_rollout("r\0", text="nul \0 in an answer", question="and \0 in a question")
    ingest_facts(database, clock, [rollout, make_thumb("f\0", rollout="r\0")])
    with database.read() as connection:
        row = connection.execute(select(rollouts)).one()
        slot = connection.execute(select(feedback_slots)).one()
    assert (row.rollout_id, row.response_text) == ("r\0", "nul \0 in an answer")
    assert row.messages == [["user", "and \0 in a question"]]
    assert (slot.rollout_id, slot.feedback_id) == ("r\0", "f\0")


def test_a_store_of_the_first_version_keeps_its_rows(stores: Stores) -> None:
    """Migrating step by step: what the first version wrote is there after the newest."""
    database = stores.open_empty()
    migrate(database, to="0001")
    names = "name, value, reason, change_time"
    slot = "tenant, rater_id, rollout_id, kind, feedback_id, revision, retracted, digest, accept_time, up"
    with database.write() as connection:
        connection.exec_driver_sql(f"INSERT INTO flags ({names}) VALUES ('x', 'y', '', 5)")
        connection.exec_driver_sql(
            f"INSERT INTO feedback_slots ({slot})"
            " VALUES ('default', 'ann', 'r1', 'thumb', 'f1', 1, false, 'd', 7, true)"
        )
        connection.exec_driver_sql(
            "INSERT INTO experiences (rollout_id, tenant, state) VALUES ('r1', 'default', 'open'), ('r2', 'x', 'used')"
        )
    migrate(database)
    lines = canonical_dump(database)
    assert [line.partition(" ")[0] for line in lines] == ["feedback_slots", "experiences", "experiences"]
    with database.read() as connection:
        assert connection.scalar(select(flags.c.value)) == "y"
        slot_row = connection.execute(select(feedback_slots)).one()
    assert (slot_row.rater_id, slot_row.up, slot_row.quarantined) == ("ann", True, False)
