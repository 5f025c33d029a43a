"""What stays of a forgotten person's words in SQLite's own files: nothing, in the store and in its log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from services.learner.state.dump import canonical_dump
from services.shared.domain.errors import Busy
from services.shared.domain.feedback import Edit
from services.shared.store.database import Database
from services.shared.store.tables import rollouts
from tests.support.facts import make_feedback, make_rollout
from tests.support.forgetting_world import ALICE, BOB, HERS, HIS, SECRET, forget
from tests.support.learner_store import LearnerStore, ManualClock, ingest_facts, open_test_database

LONG = f"{SECRET} " * 2_000
"""Longer than a page: such texts have pages of their own, which become free as a whole."""


def files_with(folder: Path, text: str) -> list[str]:
    return [path.name for path in sorted(folder.iterdir()) if text.encode() in path.read_bytes()]


def filled(folder: Path) -> LearnerStore:
    learner = LearnerStore(open_test_database(folder), ManualClock(1000))
    hers, his = make_rollout(HERS[0], rater=ALICE, text=LONG), make_rollout(HIS[0], rater=BOB, text="Bob's")
    edit = make_feedback("f", rollout=HERS[0], rater=ALICE, body=Edit(text=LONG))
    ingest_facts(learner.database, learner.clock, [hers, his, edit])
    learner.database.clear_log()
    return learner


def test_no_file_of_the_store_holds_them(tmp_path: Path) -> None:
    learner = filled(tmp_path)
    assert files_with(tmp_path, SECRET) == ["store.db"]
    forget(learner)
    learner.database.clear_log()
    assert files_with(tmp_path, SECRET) == []
    assert files_with(tmp_path, "Bob's") == ["store.db"]
    learner.database.close()


def test_a_rollout_that_comes_late_takes_an_earlier_edit_with_it(tmp_path: Path) -> None:
    learner = LearnerStore(open_test_database(tmp_path), ManualClock(1000))
    database, clock = learner.database, learner.clock
    ingest_facts(database, clock, [make_feedback("f", rollout=HERS[0], rater=BOB, body=Edit(text=LONG))])
    forget(learner)
    ingest_facts(database, clock, [make_rollout(HERS[0], rater=ALICE)])
    database.clear_log()
    assert files_with(tmp_path, SECRET) == []
    database.close()


def test_words_that_were_replaced_before_are_gone_too(tmp_path: Path) -> None:
    """The same id again with other words, or taken back: the former words lay in pages that nothing refers to."""
    learner = LearnerStore(open_test_database(tmp_path), ManualClock(1000))
    said = make_feedback("f", rollout=HERS[0], rater=ALICE, body=Edit(text=LONG))
    ingest_facts(learner.database, learner.clock, [said])
    ingest_facts(learner.database, learner.clock, [replace(said, body=None, retracted=True)])
    learner.database.clear_log()
    assert files_with(tmp_path, SECRET) == []
    learner.database.close()


def test_the_log_is_emptied_when_nobody_reads_from_it(tmp_path: Path) -> None:
    learner = filled(tmp_path)
    with learner.database.read() as connection:
        connection.execute(select(rollouts)).all()
        forget(learner)
        with pytest.raises(Busy):
            learner.database.clear_log()
    learner.database.clear_log()
    assert (tmp_path / "store.db-wal").stat().st_size == 0
    learner.database.close()


def test_emptying_the_log_takes_nothing_out_of_the_store(database: Database, clock: ManualClock) -> None:
    """PostgreSQL has no such files, and nothing happens there; twice is once."""
    ingest_facts(database, clock, [make_rollout(), make_feedback()])
    before = canonical_dump(database)
    for _ in range(2):
        database.clear_log()
        assert canonical_dump(database) == before
