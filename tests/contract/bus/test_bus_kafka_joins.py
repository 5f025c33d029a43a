"""Members of a group on a real broker: every join comes to its end, once, and all partitions are read, new ones too."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka.coordinator.base import BaseCoordinator

from services.shared.bus import kafka_connection, kafka_readers
from services.shared.bus.interface import Bus, GroupReader, OutgoingEvent
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.settings.model import BusSettings
from tests.contract.bus.conftest import SPREAD
from tests.support.brokers import TOLD_WITHIN_S, bus_with_topics
from tests.support.patience import eventually
from tests.support.reading import read_count

TOPIC = SPREAD.name
ADDED = 3 * SPREAD.partitions
METADATA_MAX_AGE_S = 1.0


def member(bus: Bus, name: str = "member-0") -> GroupReader:
    return bus.group_reader(group="g", member_id=name, topic=TOPIC)


def settle(reader: GroupReader) -> None:
    """Polls as one does who has nothing to read, until new partitions would have been seen, and longer."""
    began = time.monotonic()
    while time.monotonic() - began < 3 * METADATA_MAX_AGE_S:
        assert reader.poll(0.1) == []


@pytest.mark.parametrize("reopened", [False, True], ids=["same reader", "reopened reader"])
def test_a_member_reads_the_partitions_that_are_added(
    bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch, reopened: bool
) -> None:
    """kafka-python forgets the join that they make necessary; and who comes back is not told that it leads."""
    monkeypatch.setattr(kafka_connection, "METADATA_MAX_AGE_MS", int(METADATA_MAX_AGE_S * 1000))
    monkeypatch.setattr(kafka_readers, "SETTLE_S", 0.0)
    bus = bus_with_topics(bus_settings, [SPREAD])
    bus.publisher("before").send(OutgoingEvent(topic=TOPIC, key="k", value=b"1")).result(timeout=TOLD_WITHIN_S)
    reader = member(bus)
    reader.commit(read_count(reader, 1))
    if reopened:
        reader.close()
        reader = member(bus)
        settle(reader)
    with KafkaConnection(bus_settings).admin() as admin:
        admin.create_partitions({bus_settings.topic_prefix + TOPIC: ADDED})
    settle(reader)
    again = bus_with_topics(bus_settings, [SPREAD])  # a producer learns of them when it asks; this one asks now
    publisher = again.publisher("after")
    events = [OutgoingEvent(topic=TOPIC, key=f"key-{number}", value=b"2") for number in range(100)]
    sent = [future.result(timeout=TOLD_WITHIN_S) for future in [publisher.send(event) for event in events]]
    assert {record.place.partition for record in sent} == set(range(ADDED))
    came = read_count(reader, len(sent), deadline_s=60)
    assert {(record.place, record.offset) for record in came} == {(record.place, record.offset) for record in sent}
    reader.commit(came)
    for each in (bus, again):
        each.close()


def test_a_member_that_comes_makes_few_joins(bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A join that ends between two polls is thrown away by kafka-python: without care there are dozens."""
    joins = count_joins(monkeypatch)
    monkeypatch.setattr(kafka_readers, "SETTLE_S", 0.0)
    bus = bus_with_topics(bus_settings, [SPREAD])
    with polled(member(bus, "one")) as one:
        eventually(lambda: one() == SPREAD.partitions, within_s=60, what="the first has all")
        joins.clear()
        with polled(member(bus, "two")) as two:
            share = SPREAD.partitions // 2
            eventually(lambda: (one(), two()) == (share, share), within_s=60, what="fair shares")
            assert sum(joins.values()) <= 20, joins
    bus.close()


def count_joins(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """JoinGroups by member."""
    joins: Counter[str] = Counter()
    join_and_sync = BaseCoordinator._do_join_and_sync_async

    async def counted(coordinator: Any) -> Any:
        joins[coordinator.group_instance_id] += 1
        return await join_and_sync(coordinator)

    monkeypatch.setattr(BaseCoordinator, "_do_join_and_sync_async", counted)
    return joins


@contextmanager
def polled(reader: GroupReader) -> Iterator[Callable[[], int]]:
    """A thread polls it; gives how many partitions it has."""
    stopping, had = threading.Event(), [0]

    def run() -> None:
        while not stopping.is_set():
            reader.poll(0.5)
            had[0] = len(reader._consumer.assignment())  # type: ignore[attr-defined]  # the interface does not tell
        reader.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield lambda: had[0]
    finally:
        stopping.set()
        thread.join(30)
    assert not thread.is_alive()
