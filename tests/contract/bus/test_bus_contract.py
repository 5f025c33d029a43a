"""What every bus keeps: order per key, bounds, offsets, groups that remember. Memory and Kafka alike."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import replace

import pytest

from services.shared.bus import kafka_readers
from services.shared.bus.interface import Bus, OutgoingEvent, Place, Record
from services.shared.bus.kafka import KafkaBus
from services.shared.bus.partitioning import partition_of
from services.shared.contracts.topics import dead_letter_topic
from services.shared.domain.errors import Corrupt, InvalidInput, Unavailable
from tests.contract.bus.conftest import MAX_EVENT_BYTES, SPREAD
from tests.support.brokers import TOLD_WITHIN_S
from tests.support.reading import assign_all, read_count

TOPIC = SPREAD.name


def event(key: str, number: int = 0) -> OutgoingEvent:
    return OutgoingEvent(topic=TOPIC, key=key, value=f"{key}:{number}".encode(), headers={"n": str(number).encode()})


def publish_all(bus: Bus, count: int, keys: int = 7) -> list[Record]:
    publisher = bus.publisher("writer")
    futures = [publisher.send(event(f"key-{number % keys}", number)) for number in range(count)]
    records = [future.result(timeout=TOLD_WITHIN_S) for future in futures]
    publisher.close(5)
    return records


def by_place(records: list[Record]) -> dict[Place, list[int]]:
    offsets: dict[Place, list[int]] = defaultdict(list)
    for record in records:
        offsets[record.place].append(record.offset)
    return dict(offsets)


def test_what_is_published_is_read_in_order_of_its_key(bus: Bus) -> None:
    written = publish_all(bus, 200)
    reader = bus.log_reader("reader")
    assign_all(reader, TOPIC)
    read = read_count(reader, 200)
    assert len(read) == 200
    assert {(record.place, record.offset): record.value for record in read} == {
        (record.place, record.offset): record.value for record in written
    }
    for key in {record.key for record in read}:
        numbers = [int(record.headers["n"]) for record in read if record.key == key]
        assert numbers == sorted(numbers)
    for offsets in by_place(read).values():
        assert offsets == list(range(len(offsets)))
    reader.close()


def test_a_key_always_goes_to_the_same_partition_on_every_bus(bus: Bus) -> None:
    written = publish_all(bus, 40, keys=20)
    assert {record.place.partition for record in written} == set(range(SPREAD.partitions))
    for record in written:
        assert record.place == Place(TOPIC, partition_of(record.key, SPREAD.partitions))


async def test_publish_returns_when_the_log_has_the_event(bus: Bus) -> None:
    publisher = bus.publisher("writer")
    before = time.time()
    record = await publisher.publish(event("one", 1))
    assert (record.value, record.offset) == (b"one:1", 0)
    assert before - 5 < record.timestamp.timestamp() < time.time() + 5
    reader = bus.log_reader("reader")
    assert reader.end_offsets([record.place]) == {record.place: 1}
    reader.close()
    publisher.close(5)


def test_a_reader_starts_where_it_is_told(bus: Bus) -> None:
    written = publish_all(bus, 30, keys=1)
    place = written[0].place
    reader = bus.log_reader("reader")
    assert reader.beginning_offsets([place]) == {place: 0}
    assert reader.end_offsets([place]) == {place: 30}
    reader.assign({place: 20})
    assert [record.offset for record in read_count(reader, 10)] == list(range(20, 30))
    assert reader.poll(0.2) == []
    reader.assign({place: 28})
    assert [record.offset for record in read_count(reader, 2)] == [28, 29]
    reader.close()


def test_a_poll_gives_no_more_than_it_was_asked_for(bus: Bus) -> None:
    place = publish_all(bus, 20, keys=1)[0].place
    reader = bus.log_reader("reader")
    reader.assign({place: 0})
    offsets: list[int] = []
    deadline = time.monotonic() + 20
    while len(offsets) < 20 and time.monotonic() < deadline:
        records = reader.poll(1.0, max_records=3)
        assert len(records) <= 3
        offsets += [record.offset for record in records]
    assert offsets == list(range(20))
    reader.close()


def test_a_poll_waits_for_what_comes(bus: Bus) -> None:
    reader = bus.log_reader("reader")
    assign_all(reader, TOPIC)
    assert reader.poll(0.1) == []
    writer = threading.Thread(target=publish_all, args=(bus, 1))
    writer.start()
    assert len(read_count(reader, 1)) == 1
    writer.join()
    reader.close()


def test_an_offset_that_the_log_does_not_hold_is_corrupt(bus: Bus) -> None:
    place = publish_all(bus, 3, keys=1)[0].place
    reader = bus.log_reader("reader")
    reader.assign({place: 1000})
    deadline = time.monotonic() + 20
    with pytest.raises(Corrupt):
        while time.monotonic() < deadline:
            assert reader.poll(0.5) == []
    reader.close()


def test_a_group_goes_on_after_its_last_commit(bus: Bus) -> None:
    publish_all(bus, 40)
    reader = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    first = read_count(reader, 40)
    done = [record for record in first if record.place.partition % 2 == 0]
    left = [record for record in first if record.place.partition % 2 == 1]
    assert done
    assert left
    reader.commit(done)
    reader.close()

    again = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    repeated = read_count(again, len(left))
    assert by_place(repeated) == by_place(left)
    again.commit(repeated)
    again.close()

    publish_all(bus, 1)
    last = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    assert len(read_count(last, 1)) == 1
    last.close()


def test_a_group_reads_again_what_was_never_committed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_readers, "SESSION_TIMEOUT_MS", 60_000)
    publish_all(bus, 10)
    reader = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    first = read_count(reader, 10)
    reader.close()
    again = bus.group_reader(group="g", member_id="member-0", topic=TOPIC)
    started = time.monotonic()
    assert by_place(read_count(again, 10, deadline_s=90)) == by_place(first)
    assert time.monotonic() - started < 30, "a static member takes its place without waiting for its old session"
    again.close()


def test_groups_do_not_share_offsets(bus: Bus) -> None:
    publish_all(bus, 10)
    for group in ("one", "two"):
        reader = bus.group_reader(group=group, member_id="member-0", topic=TOPIC)
        records = read_count(reader, 10)
        reader.commit(records)
        reader.close()
        assert len(records) == 10


def test_too_large_an_event_is_refused_and_harms_no_other(bus: Bus) -> None:
    publisher = bus.publisher("writer")
    large = OutgoingEvent(topic=TOPIC, key="large", value=b"x" * (MAX_EVENT_BYTES + 1))
    first, refused, second = (publisher.send(each) for each in (event("a"), large, event("b")))
    with pytest.raises(InvalidInput) as caught:
        refused.result(timeout=TOLD_WITHIN_S)
    assert caught.value.reason == "EVENT_TOO_LARGE"
    assert (first.result(timeout=TOLD_WITHIN_S).key, second.result(timeout=TOLD_WITHIN_S).key) == ("a", "b")
    fits = publisher.send(OutgoingEvent(topic=TOPIC, key="fits", value=b"x" * MAX_EVENT_BYTES))
    assert len(fits.result(timeout=TOLD_WITHIN_S).value) == MAX_EVENT_BYTES
    publisher.close(5)


def test_many_threads_share_a_publisher(bus: Bus) -> None:
    publisher = bus.publisher("writer")
    written: list[Record] = []
    lock = threading.Lock()

    def write(thread: int) -> None:
        futures = [publisher.send(event(f"thread-{thread}", number)) for number in range(50)]
        records = [future.result(timeout=TOLD_WITHIN_S) for future in futures]
        with lock:
            written.extend(records)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher.close(5)
    reader = bus.log_reader("reader")
    assign_all(reader, TOPIC)
    read = read_count(reader, 400)
    for key in {record.key for record in read}:
        assert [int(record.headers["n"]) for record in read if record.key == key] == list(range(50))
    assert len({(record.place, record.offset) for record in read}) == len(read) == 400
    reader.close()


def test_topics_are_made_once_and_left_as_they_are(bus: Bus) -> None:
    publish_all(bus, 5)
    bus.ensure_topics([replace(SPREAD, partitions=9)])
    reader = bus.log_reader("reader")
    assert reader.places(TOPIC) == [Place(TOPIC, partition) for partition in range(SPREAD.partitions)]
    assert len(reader.places(dead_letter_topic(TOPIC))) == 1
    assert sum(reader.end_offsets(reader.places(TOPIC)).values()) == 5
    reader.close()


def test_an_unknown_topic_is_told_to_readers(bus: Bus) -> None:
    reader = bus.log_reader("reader")
    with pytest.raises(Unavailable, match="topic"):
        reader.places("never-made")
    reader.close()


def test_an_unknown_topic_is_told_to_publishers(bus: Bus, request: pytest.FixtureRequest) -> None:
    if isinstance(bus, KafkaBus) and request.getfixturevalue("broker").embedded:
        reason = "The embedded broker makes a topic when a producer asks for it, though the client forbids it."
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    publisher = bus.publisher("writer")
    with pytest.raises(Unavailable):
        publisher.send(OutgoingEvent(topic="never-made", key="k", value=b"v")).result(timeout=TOLD_WITHIN_S)
    publisher.close(5)


def test_what_is_closed_refuses(bus: Bus) -> None:
    publisher = bus.publisher("writer")
    publisher.close(1)
    publisher.close(1)
    with pytest.raises(Unavailable):
        publisher.send(event("late")).result(timeout=1)
    reader = bus.log_reader("reader")
    assign_all(reader, TOPIC)
    reader.close()
    reader.close()
    with pytest.raises(Unavailable):
        reader.poll(0.1)


def test_closing_a_publisher_waits_for_what_is_in_flight(bus: Bus) -> None:
    publisher = bus.publisher("writer")
    futures = [publisher.send(event(f"k{number}", number)) for number in range(100)]
    publisher.close(20)
    assert all(future.done() for future in futures)
    assert len({future.result().key for future in futures}) == 100


def test_offsets_of_a_group_without_members_can_be_written(bus: Bus) -> None:
    """As ingest mirrors how far it is; a reader that joins the group later begins there."""
    publisher = bus.publisher("writer")
    records = [
        publisher.send(OutgoingEvent(topic=SPREAD.name, key=str(number), value=b"x")).result(timeout=TOLD_WITHIN_S)
        for number in range(12)
    ]
    offsets = bus.group_offsets("watched")
    reader = bus.log_reader("ends")
    ends = reader.end_offsets(reader.places(SPREAD.name))
    offsets.commit(dict.fromkeys(ends, 0))
    offsets.commit(ends)
    offsets.close()
    offsets.close()
    later = publisher.send(OutgoingEvent(topic=SPREAD.name, key="later", value=b"x")).result(timeout=TOLD_WITHIN_S)
    member = bus.group_reader(group="watched", member_id="m", topic=SPREAD.name)
    assert [(record.place, record.offset) for record in read_count(member, 1)] == [(later.place, later.offset)]
    assert len(records) == 12


def test_a_log_keeps_its_incarnation(bus: Bus) -> None:
    reader = bus.log_reader("reader")
    places = reader.places(SPREAD.name)
    before = reader.incarnations(places)
    bus.publisher("writer").send(OutgoingEvent(topic=SPREAD.name, key="k", value=b"x")).result(timeout=TOLD_WITHIN_S)
    assert set(before) == set(places) and reader.incarnations(reader.places(SPREAD.name)) == before


def test_deleted_records_are_gone_and_the_rest_keeps_its_offsets(bus: Bus) -> None:
    publish_all(bus, 40)
    reader = bus.log_reader("reader")
    place, untouched = reader.places(TOPIC)[:2]
    ends, others = reader.end_offsets([place])[place], reader.beginning_offsets([untouched])
    assert ends >= 3
    bus.delete_records({place: 0})
    assert reader.beginning_offsets([place]) == {place: 0}
    for _ in range(2):
        bus.delete_records({place: 2})
    assert reader.beginning_offsets([place]) == {place: 2}
    assert reader.end_offsets([place]) == {place: ends}
    assert reader.beginning_offsets([untouched]) == others
    reader.assign({place: 2})
    assert [record.offset for record in read_count(reader, ends - 2)] == list(range(2, ends))
    publish_all(bus, 40)
    assert reader.end_offsets([place])[place] > ends
    reader.close()
