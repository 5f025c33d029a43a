from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.store.database import Database
from tests.support.learner_store import LearnerStore, ManualClock, open_test_database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(seconds=1000)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_test_database(tmp_path)
    yield database
    database.close()


@pytest.fixture
def learner(database: Database, clock: ManualClock) -> LearnerStore:
    return LearnerStore(database, clock)
