"""Many dead letters: they are moved a window at a time, so that neither memory nor the topic fills, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future

import pytest

from services.learner.forgetting import dead_letters
from services.learner.forgetting.dead_letters import DeadLetterEraser
from services.shared.bus.dead_letters import read_dead_letters
from services.shared.bus.interface import OutgoingEvent, Place, Publisher, Record
from services.shared.bus.memory import MemoryBus
from services.shared.contracts.topics import FEEDBACK, dead_letter_topic, load_topic_pages
from services.shared.domain.errors import Busy, Unavailable
from tests.support.forgetting_world import ALICE

DLQ = Place(dead_letter_topic(FEEDBACK), 0)
LETTERS, HERS = 20, 11
"""How many there are, and which of them is Alice's."""
OTHERS = sorted(b"\xff%02d" % number for number in range(LETTERS) if number != HERS)


class Outcome(Future[Record]):
    """Takes its publisher's room until somebody looks."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look

    def result(self, timeout: float | None = None) -> Record:
        self._look()
        return super().result(timeout)


class FailingPublisher:
    """Kafka goes away after so many events; or there is room for so many whose outcome nobody has looked at."""

    def __init__(self, bus: MemoryBus, *, after: int = LETTERS, room: int = LETTERS) -> None:
        self._inner = bus.publisher("failing")
        self._left = after
        self._room = room
        self._taken = 0

    def send(self, event: OutgoingEvent) -> Future[Record]:
        if self._taken == self._room:
            refused: Future[Record] = Future()
            refused.set_exception(Busy("too much in flight"))
            return refused
        self._taken += 1
        outcome = Outcome(self._make_room)
        if self._left == 0:
            outcome.set_exception(Unavailable("Kafka is away"))
        else:
            self._left -= 1
            outcome.set_result(self._inner.send(event).result())
        return outcome

    def _make_room(self) -> None:
        self._taken -= 1

    async def publish(self, event: OutgoingEvent) -> Record:
        return self.send(event).result()

    def close(self, timeout_s: float) -> None:
        self._inner.close(timeout_s)


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> MemoryBus:
    monkeypatch.setattr(dead_letters, "WINDOW", 3)
    bus = MemoryBus()
    bus.ensure_topics(load_topic_pages().values())
    for number in range(LETTERS):
        value = b"\xff" + ALICE.encode() if number == HERS else b"\xff%02d" % number
        bus.append(OutgoingEvent(topic=DLQ.topic, key=str(number), value=value))
    return bus


def erase(bus: MemoryBus, publisher: Publisher | None = None) -> int:
    eraser = DeadLetterEraser(bus, publisher or bus.publisher("test"))
    return eraser.erase(rater_ids=[ALICE], rollout_ids=())


def there(bus: MemoryBus) -> list[bytes]:
    return sorted(letter.record.value for letter in read_dead_letters(bus, [DLQ.topic]))


def test_each_window_is_deleted_before_the_next_is_published(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    delete = bus.delete_records

    def watch(before: Mapping[Place, int]) -> None:
        held.append(len(there(bus)))
        delete(before)

    monkeypatch.setattr(bus, "delete_records", watch)
    assert erase(bus) == 1
    assert max(held) == LETTERS + 3
    assert there(bus) == OTHERS
    assert bus.logs[DLQ].first == HERS + 1  # what lay behind was not moved


def test_large_ones_make_small_windows(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "WINDOW_BYTES", 4)  # two of three bytes each
    deleted: list[int] = []
    delete = bus.delete_records

    def watch(before: Mapping[Place, int]) -> None:
        deleted.extend(before.values())
        delete(before)

    monkeypatch.setattr(bus, "delete_records", watch)
    assert erase(bus) == 1
    assert deleted == [0, 2, 4, 6, 8, 10, 12]


def test_what_was_done_before_an_outage_stays_done(bus: MemoryBus) -> None:
    for tries in range(1, 4):
        with pytest.raises(Unavailable):
            erase(bus, FailingPublisher(bus, after=4))
        assert bus.logs[DLQ].first == 3 * tries
        assert len(there(bus)) == LETTERS + tries  # one of an unfinished window is there twice
    assert erase(bus, FailingPublisher(bus, after=4)) == 1
    assert sorted(set(there(bus))) == OTHERS


def test_a_publisher_with_little_room_is_waited_for(bus: MemoryBus) -> None:
    assert erase(bus, FailingPublisher(bus, room=2)) == 1
    assert there(bus) == OTHERS


def test_a_publisher_without_room_is_told_as_busy(bus: MemoryBus) -> None:
    with pytest.raises(Busy):
        erase(bus, FailingPublisher(bus, room=0))
    assert len(there(bus)) == LETTERS
