"""Ingest whose Kafka stays away opens a new reader: an old one asks for ever where it knew the brokers."""

from __future__ import annotations

from pathlib import Path

from services.learner.ingest.ingest import REOPEN_AFTER
from services.shared.bus.memory import MemoryBus, MemoryLogReader
from services.shared.contracts.topics import load_topic_pages
from tests.support.learner_store import ManualClock, make_ingest, open_test_database
from tests.support.patience import eventually


class CountingBus(MemoryBus):
    """Counts the readers of ingest."""

    opened = 0

    def log_reader(self, client_id: str) -> MemoryLogReader:
        self.opened += 1
        return super().log_reader(client_id)


def test_a_reader_that_waits_too_long_is_replaced(tmp_path: Path) -> None:
    bus, clock, database = CountingBus(), ManualClock(), open_test_database(tmp_path)
    bus.ensure_topics(load_topic_pages().values())
    ingest = make_ingest(bus, database, clock)
    ingest.start()
    try:
        eventually(lambda: ingest.assignment.held, what="partitions")
        bus.go_away()
        eventually(lambda: ingest.waiting, what="ingest notices")
        assert bus.opened == 1
        clock.advance(REOPEN_AFTER.total_seconds() + 1)
        eventually(lambda: bus.opened == 2, what="another reader")
        bus.come_back()
        eventually(lambda: not ingest.waiting and ingest.assignment.held, what="it reads again")
        assert bus.opened == 2
    finally:
        ingest.stop()
        database.close()
    assert ingest.failure is None
