"""Takes a person's events out of the dead-letter topics at once, instead of waiting for retention.

A log loses records from its beginning alone. So what is to stay of the part that goes is published again at the end
first, with its headers, and then everything up to the last of the person's records is deleted. A crash between the two
leaves survivors twice; they are dead letters all the same, and replaying one twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.shared.bus.dead_letters import DeadLetter, dead_letter_topics, partitions, read_dead_letters
from services.shared.bus.interface import Bus, OutgoingEvent, Place, Publisher
from services.shared.bus.traces import Traces, is_rollout_id
from services.shared.domain.errors import Unavailable
from services.shared.telemetry.log import get_logger

ACK_TIMEOUT_S = 30.0

_log = get_logger()


class DeadLetterEraser:
    """Belongs to one thread. May be asked again: what is gone is gone."""

    def __init__(self, bus: Bus, publisher: Publisher) -> None:
        self._bus = bus
        self._publisher = publisher

    def erase(self, *, rater_ids: Sequence[str], rollout_ids: Sequence[str]) -> int:
        """How many records of theirs are gone. Raises Unavailable (come again), NotSupported (the broker cannot)."""
        topics = dead_letter_topics()
        traces = self._all_traces(topics, rater_ids, rollout_ids)
        erased = 0
        for place, letters in partitions(read_dead_letters(self._bus, topics)).items():
            theirs = [letter for letter in letters if traces.are_in(letter.record)]
            if theirs:
                self._cut(place, letters, theirs)
                erased += len(theirs)
        return erased

    def _all_traces(self, topics: Sequence[str], rater_ids: Sequence[str], rollout_ids: Sequence[str]) -> Traces:
        """A rollout that never reached the store is known by its rater; what else names it is the person's too. (An
        event's key is its rollout's id.)
        """
        traces = Traces(rater_ids=rater_ids, rollout_ids=rollout_ids)
        named = {letter.record.key for letter in read_dead_letters(self._bus, topics) if traces.are_in(letter.record)}
        return Traces(rater_ids=rater_ids, rollout_ids={*rollout_ids, *(key for key in named if is_rollout_id(key))})

    def _cut(self, place: Place, letters: Sequence[DeadLetter], theirs: Sequence[DeadLetter]) -> None:
        first, last = letters[0].record.offset, theirs[-1].record.offset
        self._bus.delete_records({place: first})  # deletes nothing; a broker that cannot says so before anything moves
        gone = {letter.id for letter in theirs}
        survivors = [letter for letter in letters if letter.record.offset < last and letter.id not in gone]
        self._publish_again(place, survivors)
        self._bus.delete_records({place: last + 1})
        _log.info("dead_letters_erased", topic=place.topic, erased=len(theirs), moved=len(survivors))

    def _publish_again(self, place: Place, letters: Sequence[DeadLetter]) -> None:
        """Raises Unavailable unless Kafka has all of them again."""
        sent = [
            self._publisher.send(
                OutgoingEvent(
                    topic=place.topic,
                    key=letter.record.key,
                    value=letter.record.value,
                    headers=letter.record.headers,
                )
            )
            for letter in letters
        ]
        for future in sent:
            try:
                future.result(timeout=ACK_TIMEOUT_S)
            except TimeoutError as error:
                raise Unavailable("dead letters were not acknowledged", retry_after=1.0) from error
