"""A topic is deleted and made again while an ingest process reads it.

Plan: a process (role `ingest`) reads twenty chats; the topic `feedback` is deleted and made again, and grows further
than it was before, so that no offset is out of range.
Pass: the process ends by itself with a code that is not 0; its last word names the topic, and what to do; nothing of
the new topic is in the store. With the named rows deleted it reads the new topic from its start.
"""

from __future__ import annotations

from pathlib import Path

from kafka import KafkaAdminClient
from sqlalchemy import delete

from services.shared.bus import open_bus
from services.shared.contracts.topics import FEEDBACK, load_topic_pages
from services.shared.settings.model import BusSettings
from services.shared.store.tables import ingest_offsets
from tests.support.brokers import bus_with_topics
from tests.support.facts import make_thumb
from tests.support.ingest_load import Load, event_of, missing
from tests.support.ingest_process import ingest_process
from tests.support.learner_store import open_test_database
from tests.support.patience import eventually


def test_it_stops_with_a_clear_word(plain: BusSettings, tmp_path: Path) -> None:
    bus = bus_with_topics(plain, load_topic_pages().values())
    database = open_test_database(tmp_path)
    load = Load()
    load.send(bus.publisher("load"), 20)
    with ingest_process(tmp_path, plain, "one") as one:
        eventually(lambda: not missing(database, load), within_s=30)
        remake_feedback(plain)
        again = open_bus(plain)
        thumbs = [make_thumb(f"new-{number}", rollout=f"c{number % 20 + 1:06}") for number in range(200)]
        publisher = again.publisher("again")
        for future in [publisher.send(event_of(thumb)) for thumb in thumbs]:
            future.result(timeout=30)
        eventually(lambda: one.process.returncode is not None, within_s=40, what="it stops")
        assert one.process.returncode == 1
        word = one.process.log_tail()
        assert "feedback[" in word and "ingest stops rather than lose events" in word.lower()
        assert "delete its row in the store's table `ingest_offsets`" in " ".join(word.split())
    new = Load(acknowledged=list(thumbs))
    assert len(missing(database, new)["feedback"]) == 200
    with database.write() as connection:
        connection.execute(delete(ingest_offsets).where(ingest_offsets.c.topic == FEEDBACK))
    with ingest_process(tmp_path, plain, "one"):
        eventually(lambda: not missing(database, new), within_s=30)
    assert not missing(database, load)
    again.close()
    bus.close()
    database.close()


def remake_feedback(settings: BusSettings) -> None:
    """As an operator does it, who thinks of nothing."""
    name = settings.topic_prefix + FEEDBACK
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        admin.delete_topics([name], timeout_ms=10_000)
        eventually(lambda: name not in admin.list_topics(), within_s=20)
        admin.create_topics(
            {name: {"num_partitions": 4, "replication_factor": 1}}, timeout_ms=10_000, wait_for_metadata=True
        )
    finally:
        admin.close()
