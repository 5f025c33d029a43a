"""Every test here runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.store.database import Database
from tests.support.learner_store import LearnerStore, ManualClock
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.stores import PostgresStores, SqliteStores, Stores


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole run, started at its first use."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Stores of one kind."""
    stores: Stores = SqliteStores(tmp_path)
    if request.param == "postgresql":
        stores = PostgresStores(request.getfixturevalue("postgres"))
    yield stores
    stores.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(seconds=1000)


@pytest.fixture
def database(stores: Stores) -> Database:
    return stores.open()


@pytest.fixture
def learner(database: Database, clock: ManualClock) -> LearnerStore:
    return LearnerStore(database, clock)
