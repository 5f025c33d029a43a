"""The log changes under a running ingest: partitions are added, the broker is killed, records pass their retention.

Plan: ingest runs in its thread (leases of two seconds) on a node of Apache Kafka, under a steady load. (1) The topics
get twice as many partitions. (2) The broker gets SIGKILL and is started again. (3) Kafka
deletes what is older than the page of `feedback` lets it be: one ingest has read it, another was behind.
Pass: (1) the new partitions are read within a few rounds, and nothing is lost; (2) everything acknowledged is in the
store, once, and ingest never stopped; (3) the one behind stops, and its word names the partition, the
offsets and what to do; the one ahead has all, and reads on what comes next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from services.learner.ingest.decoding import TOPICS
from services.learner.ingest.feedback_gauges import FeedbackGauges
from services.learner.ingest.ingest import Ingest
from services.learner.ingest.offset_mirror import GROUP, OffsetMirror
from services.learner.ingest.reporting import Reporting
from services.learner.state.dump import canonical_dump
from services.shared.bus import open_bus
from services.shared.bus.interface import Bus, Place
from services.shared.contracts.topics import FEEDBACK, KEPT_FOR_EVER, load_topic_pages
from services.shared.domain.errors import Corrupt
from services.shared.ids import utc_now
from services.shared.settings.model import BusSettings
from services.shared.store.database import Database
from services.shared.telemetry.metrics import Metrics
from tests.support.brokers import bus_with_topics
from tests.support.facts import DEPLOYMENT
from tests.support.ingest_load import ACK_TIMEOUT_S, Load, chat, event_of, missing, read_from, steady_load
from tests.support.learner_store import ManualClock, ingest_facts, open_test_database
from tests.support.patience import eventually
from tests.support.secured_kafka import SecuredKafka

LEASE_TTL_S = 2.0


@pytest.fixture
def bus(plain: BusSettings) -> Iterator[Bus]:
    bus = bus_with_topics(plain, load_topic_pages().values())
    yield bus
    bus.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_test_database(tmp_path)
    yield database
    database.close()


@contextmanager
def running_ingest(bus: Bus, database: Database, metrics: Metrics | None = None) -> Iterator[Ingest]:
    """In its thread; drained at the end."""
    shown = metrics or Metrics()
    gauges = FeedbackGauges(database, shown, clock=utc_now, join_window_s=3600, orphan_after_s=3600)
    mirror = OffsetMirror(bus.group_offsets(GROUP), interval_s=0.2)
    ingest = Ingest(
        bus=bus,
        database=database,
        deployment=DEPLOYMENT,
        clock=utc_now,
        holder="learner-0",
        lease_ttl_s=LEASE_TTL_S,
        embedded=False,
        on_failure=lambda error: None,
        reporting=Reporting(shown, clock=utc_now, feedback=gauges, mirror=mirror),
    )
    ingest.start()
    try:
        yield ingest
    finally:
        ingest.stop()


@contextmanager
def administration(settings: BusSettings) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        yield admin
    finally:
        admin.close()


def assert_the_store_is(database: Database, load: Load, tmp_path: Path) -> None:
    """What was acknowledged, and each once."""
    by_hand = open_test_database(tmp_path, "by-hand.db")
    ingest_facts(by_hand, ManualClock(), load.acknowledged)
    assert canonical_dump(database) == canonical_dump(by_hand)
    by_hand.close()


def test_partitions_added_under_load_are_picked_up(
    plain: BusSettings, bus: Bus, database: Database, tmp_path: Path
) -> None:
    metrics = Metrics()
    with running_ingest(bus, database, metrics) as ingest:
        with steady_load(bus) as load:
            eventually(lambda: len(load.acknowledged) > 30, within_s=30)
            with administration(plain) as admin:
                admin.create_partitions({plain.topic_prefix + topic: 8 for topic in TOPICS})
            eventually(lambda: len(read_from(database)) == 24, within_s=60, what="24 partitions")
        fresh = open_bus(plain)  # a producer learns of new partitions when it asks again; this one asks now
        publisher = fresh.publisher("fresh")
        while {record.place for record in load.records} != set(read_from(database)):
            load.send(publisher, 60)
            assert load.number < 10_000, "some partitions get nothing"
        fresh.close()
        assert load.refused == 0
        eventually(lambda: not missing(database, load), within_s=30)
        ends = bus.log_reader("ends").end_offsets(list(read_from(database)))

        def mirrored() -> bool:
            with administration(plain) as admin:
                found = admin.list_group_offsets(plain.topic_prefix + GROUP)[plain.topic_prefix + GROUP]
            offsets = {
                Place(key.topic.removeprefix(plain.topic_prefix), key.partition): at for key, at in found.items()
            }
            return {place: at.offset for place, at in offsets.items()} == ends

        eventually(mirrored, within_s=30, what="offsets mirrored to Kafka")
    assert ingest.failure is None and read_from(database) == ends
    assert metrics.value("thumbloop_ingest_events_total", topic=FEEDBACK, outcome="stored") == load.number
    assert_the_store_is(database, load, tmp_path)


def test_a_killed_broker_loses_nothing_that_it_acknowledged(kafka: SecuredKafka, bus: Bus, database: Database) -> None:
    with running_ingest(bus, database) as ingest:
        with steady_load(bus) as load:
            eventually(lambda: len(load.acknowledged) > 60, within_s=30)
            kafka.broker.kill()
            eventually(lambda: ingest.waiting, within_s=30, what="ingest notices")
            before = len(load.acknowledged)
            kafka.broker.start(60.0)
            eventually(lambda: len(load.acknowledged) > before + 60, within_s=60, what="the load goes on")
        eventually(lambda: not missing(database, load), within_s=30)
        ends = bus.log_reader("ends").end_offsets(list(read_from(database)))
        eventually(lambda: read_from(database) == ends, within_s=30, what="all that the log holds")
    assert ingest.failure is None


def test_what_passes_its_retention_unread_stops_who_is_behind_alone(
    plain: BusSettings, bus: Bus, database: Database, tmp_path: Path
) -> None:
    retain_feedback(plain, KEPT_FOR_EVER)
    behind, load = open_test_database(tmp_path, "behind.db"), Load()
    send_long_ago(plain, load, 20)
    for store in (behind, database):
        with running_ingest(bus, store):
            eventually(lambda store=store: not missing(store, load), within_s=60)  # type: ignore[misc]
    send_long_ago(plain, load, 20)
    with running_ingest(bus, database) as ahead:
        eventually(lambda: not missing(database, load), within_s=60)
        reader = bus.log_reader("ends")
        places = reader.places(FEEDBACK)
        ends, unread = reader.end_offsets(places), read_from(behind)
        retain_feedback(plain, load_topic_pages()[FEEDBACK].retention_ms)
        eventually(lambda: reader.beginning_offsets(places) == ends, within_s=60, what="retention")
        load.send(bus.publisher("after"), 20)
        eventually(lambda: not missing(database, load), within_s=60)
    assert ahead.failure is None
    with running_ingest(bus, behind) as late:
        eventually(lambda: late.failure is not None, within_s=60, what="the one behind stops")
    assert isinstance(late.failure, Corrupt)
    words = [
        f"feedback[{place.partition}]: offsets {unread[place]} to {ends[place] - 1} are gone and had not been read"
        for place in places
        if unread[place] < ends[place]
    ]
    assert any(word in late.failure.message for word in words), late.failure.message
    assert "`ingest_offsets`" in late.failure.message
    assert {place: read_from(behind)[place] for place in places} == {place: unread[place] for place in places}
    behind.close()


def send_long_ago(settings: BusSettings, load: Load, chats: int) -> None:
    """Chats whose thumbs are older than the page of their topic lets them be; the rest is of now."""
    then = utc_now() - timedelta(milliseconds=load_topic_pages()[FEEDBACK].retention_ms) - timedelta(hours=1)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all")
    sent = []
    for fact in (fact for _ in range(chats) for fact in chat(load.next_name())):
        event = event_of(fact)
        when = int((then if event.topic == FEEDBACK else utc_now()).timestamp() * 1000)
        name = settings.topic_prefix + event.topic
        sent.append((fact, producer.send(name, event.value, event.key.encode(), timestamp_ms=when)))
    for fact, future in sent:
        future.get(timeout=ACK_TIMEOUT_S)
        load.acknowledged.append(fact)
    producer.close()


def retain_feedback(settings: BusSettings, retention_ms: int) -> None:
    """The topic's retention from now on."""
    configs = {"retention.ms": str(retention_ms)}
    with administration(settings) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topic_prefix + FEEDBACK, configs)])
