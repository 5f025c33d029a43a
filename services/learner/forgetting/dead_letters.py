"""Takes a person's events out of the dead-letter topics at once, instead of waiting for retention.

A log loses records from its beginning alone. So a partition is taken away in *windows* up to the last of the person's
records: what is to stay of a window is published again at the end, with its headers, and then the window is deleted. At
most one window is in memory, and a crash or an outage leaves at most one window's survivors twice; they are dead
letters all the same, and replaying one twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future

from services.shared.bus.dead_letters import dead_letter_topics, read_dead_letters, read_part
from services.shared.bus.interface import Bus, OutgoingEvent, Place, Publisher, Record
from services.shared.bus.traces import Traces, is_rollout_id
from services.shared.domain.errors import Busy, Unavailable
from services.shared.telemetry.log import get_logger

ACK_TIMEOUT_S = 30.0
WINDOW = 200
WINDOW_BYTES = 8_000_000
"""A window ends with the record that reaches either."""

_log = get_logger()


class DeadLetterEraser:
    """Belongs to one thread. May be asked again: what is gone is gone."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._bus = bus
        self._publisher = publisher

    def erase(self, *, rater_ids: Sequence[str], rollout_ids: Sequence[str]) -> int:
        """How many records of theirs are gone. Raises Unavailable, Busy (come again), NotSupported (the broker
        cannot).
        """
        topics = dead_letter_topics()
        traces = self._all_traces(topics, rater_ids, rollout_ids)
        return sum(self._cut(place, last, traces) for place, last in self._last_of_theirs(topics, traces).items())

    def _all_traces(self, topics: Sequence[str], rater_ids: Sequence[str], rollout_ids: Sequence[str]) -> Traces:
        """A rollout that never reached the store is known by its rater; what else names it is the person's too. (An
        event's key is its rollout's id.)
        """
        traces = Traces(rater_ids=rater_ids, rollout_ids=rollout_ids)
        named = {letter.record.key for letter in read_dead_letters(self._bus, topics) if traces.are_in(letter.record)}
        return Traces(rater_ids=rater_ids, rollout_ids={*rollout_ids, *(key for key in named if is_rollout_id(key))})

    def _last_of_theirs(self, topics: Sequence[str], traces: Traces) -> dict[Place, int]:
        """Offset of the last of the person's records in each partition that has any."""
        records = (letter.record for letter in read_dead_letters(self._bus, topics))
        return {record.place: record.offset for record in records if traces.are_in(record)}

    def _cut(self, place: Place, last: int, traces: Traces) -> int:
        """Takes away what lies up to `last`; how many of these records were the person's."""
        erased = moved = 0
        reader = self._bus.log_reader("dead-letters")
        try:
            first = reader.beginning_offsets([place])[place]
            self._bus.delete_records({place: first})  # deletes nothing; a broker that cannot says so before any moves
            for window in _windows(read_part(reader, place, first, last + 1)):
                survivors = [record for record in window if not traces.are_in(record)]
                self._publish_again(survivors)
                self._bus.delete_records({place: window[-1].offset + 1})
                erased += len(window) - len(survivors)
                moved += len(survivors)
        finally:
            reader.close()
        _log.info("dead_letters_erased", topic=place.topic, erased=erased, moved=moved)
        return erased

    def _publish_again(self, records: Sequence[Record]) -> None:
        """Returns when Kafka has all of them again. Raises Unavailable, Busy."""
        waiting = [
            OutgoingEvent(topic=record.place.topic, key=record.key, value=record.value, headers=record.headers)
            for record in records
        ]
        while waiting:
            sent = [(event, self._publisher.send(event)) for event in waiting]
            refused = [event for event, future in sent if not _acknowledged(future)]
            if len(refused) == len(waiting):
                raise Busy("the publisher takes no dead letters now.", retry_after=1.0)
            waiting = refused


def _windows(records: Iterable[Record]) -> Iterator[list[Record]]:
    window: list[Record] = []
    size = 0
    for record in records:
        window.append(record)
        size += len(record.value)
        if len(window) >= WINDOW or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _acknowledged(future: Future[Record]) -> bool:
    """False: there was no room for it. Raises Unavailable."""
    try:
        future.result(timeout=ACK_TIMEOUT_S)
    except Busy:
        return False
    except TimeoutError as error:
        raise Unavailable("dead letters were not acknowledged", retry_after=1.0) from error
    return True
