"""What only a real broker can do to a publisher: refuse an event that the client let pass, and fall silent."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from kafka.coordinator.base import BaseCoordinator
from kafka.future import Future
from kafka.net.manager import KafkaConnectionManager
from kafka.protocol.consumer import JoinGroupRequest
from kafka.record.default_records import DefaultRecordBatch

from services.embedded.brokers import Broker
from services.shared.bus import kafka_readers, open_bus
from services.shared.bus.interface import RECORD_UNREADABLE, OutgoingEvent, Publisher
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.domain.errors import Busy, Corrupt, InvalidInput, Unavailable
from services.shared.settings.model import BusSettings
from tests.contract.bus.conftest import SPREAD
from tests.support.brokers import TOLD_WITHIN_S, bus_with_topics
from tests.support.patience import eventually
from tests.support.reading import assign_all, read_count

TOPIC = SPREAD.name


def event(number: int, size: int = 10) -> OutgoingEvent:
    return OutgoingEvent(topic=TOPIC, key=f"key-{number % 5}", value=f"{number}:".encode().ljust(size, b"x"))


def test_an_event_that_the_broker_finds_too_large_harms_no_other(bus_settings: BusSettings) -> None:
    """MESSAGE_TOO_LARGE makes an idempotent producer fail for ever; the publisher must go on with another."""
    bus = bus_with_topics(bus_settings, [replace(SPREAD, max_message_bytes=40_000)])
    publisher = bus.publisher("writer")
    sizes = {number: 60_000 if number % 20 == 7 else 10 for number in range(100)}
    futures = {number: publisher.send(event(number, size)) for number, size in sizes.items()}
    for number, future in futures.items():
        if sizes[number] > 40_000:
            with pytest.raises(InvalidInput) as caught:
                future.result(timeout=TOLD_WITHIN_S)
            assert caught.value.reason == "EVENT_TOO_LARGE"
        else:
            assert future.result(timeout=TOLD_WITHIN_S).value.startswith(f"{number}:".encode())
    assert publisher.send(event(500)).result(timeout=TOLD_WITHIN_S).value.startswith(b"500:")
    reader = bus.log_reader("reader")
    assign_all(reader, TOPIC)
    values = {int(record.value.split(b":")[0]) for record in read_count(reader, 96)}
    assert values == {number for number, size in sizes.items() if size == 10} | {500}
    bus.close()


def test_more_than_the_bound_in_flight_is_refused_at_once(own_broker: Broker) -> None:
    settings = BusSettings(bootstrap_servers=own_broker.bootstrap_servers, max_in_flight=20, ack_timeout_s=4.0)
    bus = bus_with_topics(settings, [SPREAD])
    publisher = bus.publisher("writer")
    send_until_acknowledged(publisher)
    own_broker.stop()
    futures = [publisher.send(event(number)) for number in range(30)]
    errors = [future.exception(timeout=30) for future in futures]
    assert [type(error) for error in errors] == [Unavailable] * 20 + [Busy] * 10
    assert isinstance(errors[-1], Busy)
    assert errors[-1].retry_after
    own_broker.start(60)
    send_until_acknowledged(publisher)
    bus.close()


def send_until_acknowledged(publisher: Publisher) -> None:
    """A busy machine takes longer than a publisher without patience waits; places in the bound are given back."""
    eventually(lambda: publisher.send(event(1)).exception(timeout=30) is None, within_s=90, what="an acknowledgement")


async def test_someone_who_stops_waiting_takes_no_event_back(bus_settings: BusSettings) -> None:
    bus = bus_with_topics(bus_settings, [SPREAD])
    publisher = bus.publisher("writer")
    waiting = asyncio.create_task(publisher.publish(event(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await publisher.publish(event(2))).value.startswith(b"2:")
    reader = bus.log_reader("reader")
    assign_all(reader, TOPIC)
    assert {record.value[:2] for record in read_count(reader, 2)} == {b"1:", b"2:"}
    bus.close()


def test_the_event_loop_goes_on_while_the_broker_is_away() -> None:
    bus = open_bus(BusSettings(bootstrap_servers="127.0.0.1:1", ack_timeout_s=5.0))
    publisher = bus.publisher("writer")

    async def count_ticks_while_publishing() -> tuple[int, object]:
        waiting = asyncio.gather(publisher.publish(event(1)), return_exceptions=True)
        ticks = 0
        while not waiting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        (outcome,) = await waiting
        return ticks, outcome

    ticks, error = asyncio.run(count_ticks_while_publishing())
    assert isinstance(error, Unavailable)
    assert "THUMBLOOP_BUS__BOOTSTRAP_SERVERS" in error.message
    assert ticks > 30
    publisher.close(0.1)


def test_topics_get_the_partitions_of_their_pages(bus_settings: BusSettings) -> None:
    bus = bus_with_topics(bus_settings, [SPREAD])
    with KafkaConnection(bus_settings).admin() as admin:
        name = bus_settings.topic_prefix + TOPIC
        (topic,) = admin.describe_topics([name])
        assert len(topic["partitions"]) == SPREAD.partitions
        (dead,) = admin.describe_topics([name + "-dlq"])
        assert len(dead["partitions"]) == 1
    bus.close()


def test_a_member_that_looks_for_its_coordinator_in_vain_is_given_up(
    bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python does so after a broker was killed, at times: its polls return nothing, silently and for ever."""
    monkeypatch.setattr(kafka_readers, "COORDINATOR_TIMEOUT_S", 1.0)
    monkeypatch.setattr(BaseCoordinator, "lookup_coordinator", lambda coordinator: Future())
    bus = bus_with_topics(bus_settings, [SPREAD])
    bus.publisher("writer").send(event(1)).result(timeout=TOLD_WITHIN_S)
    lost = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    deadline = time.monotonic() + 30
    with pytest.raises(Unavailable) as caught:
        while time.monotonic() < deadline:
            assert lost.poll(0.5) == []
    assert caught.value.reason == "NO_COORDINATOR"
    lost.close()
    monkeypatch.undo()
    found = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    assert [record.value[:2] for record in read_count(found, 1, patient=True)] == [b"1:"]
    found.close()
    bus.close()


def test_a_member_whose_coordinator_falls_silent_in_a_join_is_given_up(
    bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python gives the answer to a join five minutes."""
    send, silent = KafkaConnectionManager.send, []

    def unanswered(manager: Any, request: Any, *args: Any, **options: Any) -> Future:
        if isinstance(request, JoinGroupRequest):
            silent.append(request)
            return Future()
        return send(manager, request, *args, **options)

    monkeypatch.setattr(kafka_readers, "JOIN_TIMEOUT_S", 1.0)
    monkeypatch.setattr(KafkaConnectionManager, "send", unanswered)
    bus = bus_with_topics(bus_settings, [SPREAD])
    bus.publisher("writer").send(event(1)).result(timeout=TOLD_WITHIN_S)
    lost = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    deadline = time.monotonic() + 30
    with pytest.raises(Unavailable) as caught:
        while time.monotonic() < deadline:
            assert lost.poll(0.5) == []
    assert (caught.value.reason, len(silent)) == ("NO_COORDINATOR", 1)
    lost.close()
    monkeypatch.undo()
    found = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    assert [record.value[:2] for record in read_count(found, 1, patient=True)] == [b"1:"]
    found.close()
    bus.close()


def test_a_batch_that_cannot_be_read_is_told_each_time(
    bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python's second poll after one looks for the rest of the batch for ever."""
    bus = bus_with_topics(bus_settings, [SPREAD])
    place = bus.publisher("writer").send(event(1)).result(timeout=TOLD_WITHIN_S).place
    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", lambda batch: False)
    reader = bus.log_reader("reader")
    for _ in range(2):
        reader.assign({place: 0})
        with pytest.raises(Corrupt) as caught:
            read_count(reader, 1)
        assert caught.value.reason == RECORD_UNREADABLE
    monkeypatch.undo()
    reader.assign({place: 0})
    assert [record.value[:2] for record in read_count(reader, 1)] == [b"1:"]
    bus.close()
