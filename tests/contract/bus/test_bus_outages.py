"""A broker that goes away and comes back: nothing blocks, everybody is told, nothing acknowledged is missing."""

from __future__ import annotations

import time

import pytest

from services.shared.bus.interface import OutgoingEvent, Place, Publisher, Record
from services.shared.domain.errors import Unavailable
from tests.contract.bus.conftest import ACK_TIMEOUT_S, SPREAD, Outage
from tests.support.reading import assign_all, read_count

TOPIC = SPREAD.name
RECOVERY_S = 30.0
TOLD_WITHIN_S = 10 * ACK_TIMEOUT_S
"""Far more than it takes: the machine may be busy."""
AT_ONCE_S = ACK_TIMEOUT_S / 4
"""A single send that waited for the broker would take longer: a producer blocks for two seconds."""


def event(number: int) -> OutgoingEvent:
    return OutgoingEvent(topic=TOPIC, key=f"key-{number}", value=str(number).encode())


def test_sending_into_an_outage_fails_in_time_and_never_blocks(outage: Outage) -> None:
    publisher = outage.bus.publisher("writer")
    publisher.send(event(0)).result(timeout=TOLD_WITHIN_S)
    outage.stop()
    started = time.monotonic()
    futures = [publisher.send(event(number)) for number in range(1, 50)]
    assert time.monotonic() - started < AT_ONCE_S
    for future in futures:
        with pytest.raises(Unavailable):
            future.result(timeout=TOLD_WITHIN_S)
    assert time.monotonic() - started < TOLD_WITHIN_S
    publisher.close(1)


def test_a_publisher_made_during_an_outage_works_after_it(outage: Outage) -> None:
    outage.stop()
    started = time.monotonic()
    publisher = outage.bus.publisher("early")
    refused = publisher.send(event(0))
    assert time.monotonic() - started < AT_ONCE_S
    with pytest.raises(Unavailable):
        refused.result(timeout=TOLD_WITHIN_S)
    outage.start()
    assert send_until_acknowledged(publisher, event(1)).value == b"1"
    publisher.close(5)


def test_a_publisher_whose_events_ran_out_of_time_works_after_the_outage(outage: Outage) -> None:
    """kafka-python's idempotent producer sends nothing more after a batch of it has expired."""
    publisher = outage.bus.publisher("writer")
    publisher.send(event(0)).result(timeout=TOLD_WITHIN_S)
    outage.stop()
    for round_ in range(3):
        futures = [publisher.send(event(100 * round_ + number)) for number in range(20)]
        for future in futures:
            with pytest.raises(Unavailable):
                future.result(timeout=TOLD_WITHIN_S)
    outage.start()
    assert send_until_acknowledged(publisher, event(1000)).value == b"1000"
    for number in range(1001, 1050):
        publisher.send(event(number)).result(timeout=TOLD_WITHIN_S)
    publisher.close(5)


def send_until_acknowledged(publisher: Publisher, outgoing: OutgoingEvent) -> Record:
    """As a client does that sends again until it is told that the log has it."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            return publisher.send(outgoing).result(timeout=TOLD_WITHIN_S)
        except Unavailable:
            assert time.monotonic() < deadline, f"not acknowledged {RECOVERY_S} s after the broker came back"


def test_nothing_acknowledged_is_missing_after_a_restart(outage: Outage) -> None:
    publisher = outage.bus.publisher("writer")
    before = [publisher.send(event(number)).result(timeout=TOLD_WITHIN_S) for number in range(100)]
    outage.stop()
    lost = publisher.send(event(1000))
    with pytest.raises(Unavailable):
        lost.result(timeout=TOLD_WITHIN_S)
    outage.start()
    after = [send_until_acknowledged(publisher, event(number)) for number in range(100, 200)]
    reader = outage.bus.log_reader("reader")
    assign_all(reader, TOPIC)
    sent = {(record.place, record.offset): record.value for record in before + after}
    assert len(sent) == 200
    read: dict[tuple[Place, int], bytes] = {}
    while not sent.keys() <= read.keys():  # what nobody was told of may be there too
        for record in read_count(reader, 1, patient=True):
            read[record.place, record.offset] = record.value
    assert {at: read[at] for at in sent} == sent
    reader.close()
    publisher.close(5)


def test_readers_are_told_of_an_outage_and_go_on_after_it(outage: Outage) -> None:
    publisher = outage.bus.publisher("writer")
    publisher.send(event(0)).result(timeout=TOLD_WITHIN_S)
    reader = outage.bus.log_reader("reader")
    assign_all(reader, TOPIC)
    group = outage.bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    assert len(read_count(reader, 1)) == 1
    group.commit(read_count(group, 1))
    outage.stop()
    for each in (reader, group):
        deadline = time.monotonic() + 25
        with pytest.raises(Unavailable):
            while time.monotonic() < deadline:
                assert each.poll(0.5) == []
    outage.start()
    send_until_acknowledged(publisher, event(1))
    assert {record.value for record in read_count(reader, 1, patient=True)} == {b"1"}
    assert b"1" in {record.value for record in read_count(group, 1, patient=True)}
    reader.close()
    group.close()
    publisher.close(5)


def test_readers_opened_during_an_outage_work_after_it(outage: Outage) -> None:
    outage.bus.publisher("writer").send(event(0)).result(timeout=TOLD_WITHIN_S)
    outage.stop()
    reader = outage.bus.log_reader("reader")
    group = outage.bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    with pytest.raises(Unavailable):
        reader.places(TOPIC)
    with pytest.raises(Unavailable):
        group.poll(0.1)
    with pytest.raises(Unavailable):
        outage.bus.ensure_topics([SPREAD])
    outage.start()
    assert len(read_count(group, 1, patient=True)) == 1
    assign_all(reader, TOPIC)
    assert len(read_count(reader, 1, patient=True)) == 1
    reader.close()
    group.close()
