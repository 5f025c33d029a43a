"""What the memory bus adds for tests: logs that lose their head or tail, members of a group that share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.shared.bus.interface import OutgoingEvent, Place
from services.shared.bus.memory import MemoryBus
from services.shared.contracts.topics import ROLLOUTS, load_topic_pages
from services.shared.domain.errors import Corrupt, Fenced

PAGE = replace(load_topic_pages()[ROLLOUTS], partitions=1)
PLACE = Place(ROLLOUTS, 0)


def bus_with(count: int, partitions: int = 1) -> MemoryBus:
    bus = MemoryBus()
    bus.ensure_topics([replace(PAGE, partitions=partitions)])
    publisher = bus.publisher("writer")
    for number in range(count):
        publisher.send(OutgoingEvent(topic=ROLLOUTS, key=str(number), value=str(number).encode())).result()
    return bus


def test_retention_takes_the_head_away() -> None:
    bus = bus_with(10)
    bus.truncate_before(PLACE, 4)
    reader = bus.log_reader("reader")
    assert reader.beginning_offsets([PLACE]) == {PLACE: 4}
    reader.assign({PLACE: 4})
    assert [record.offset for record in reader.poll(0)] == [4, 5, 6, 7, 8, 9]
    reader.assign({PLACE: 2})
    with pytest.raises(Corrupt):
        reader.poll(0)


def test_a_lost_tail_is_corrupt_for_who_had_read_it_and_its_offsets_come_again() -> None:
    bus = bus_with(10)
    reader = bus.log_reader("reader")
    reader.assign({PLACE: 0})
    assert len(reader.poll(0)) == 10
    bus.truncate_after(PLACE, 7)
    with pytest.raises(Corrupt):
        reader.poll(0)
    again = bus.publisher("writer").send(OutgoingEvent(topic=ROLLOUTS, key="k", value=b"other")).result()
    assert again.offset == 7


def test_members_of_a_group_share_the_partitions() -> None:
    bus = bus_with(100, partitions=4)
    one = bus.group_reader(group="g", member_id="one", topic=ROLLOUTS)
    two = bus.group_reader(group="g", member_id="two", topic=ROLLOUTS)
    assert len(one.poll(0)) == 100
    read_by_two = two.poll(0)
    assert {record.place.partition for record in read_by_two} == {1, 3}
    two.commit(read_by_two)
    one.poll(0)
    assert bus.committed.keys() == {("g", Place(ROLLOUTS, 1)), ("g", Place(ROLLOUTS, 3))}


def test_a_second_reader_of_the_same_member_id_puts_the_first_out() -> None:
    bus = bus_with(3)
    first = bus.group_reader(group="g", member_id="one", topic=ROLLOUTS)
    assert len(first.poll(0)) == 3
    second = bus.group_reader(group="g", member_id="one", topic=ROLLOUTS)
    assert len(second.poll(0)) == 3
    with pytest.raises(Fenced):
        first.poll(0)
