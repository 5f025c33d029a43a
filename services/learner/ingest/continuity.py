"""Is this still the log that we were reading?

The store remembers the id of the last event of each partition. Whenever ingest takes a partition, or comes back to
Kafka, it looks at the record before its next one: the same id means the same log. A gap, a log that became shorter,
another event at that place, a topic with another id, or another cluster mean that records were lost or replaced, and
going on would hide it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from services.learner.ingest.decoding import read
from services.learner.ingest.positions import Position
from services.shared.bus.interface import LogReader, Place
from services.shared.domain.errors import Corrupt, Unavailable

WITNESS_TIMEOUT_S = 10.0
"""How long the record before the next one may take to be read."""


def check_continuity(reader: LogReader, positions: Sequence[Position], *, deployment: str) -> dict[Place, Corrupt]:
    """What is wrong, by partition; empty: all is well. Leaves the reader assigned elsewhere. Raises Unavailable."""
    places = [position.place for position in positions]
    if not places:
        return {}
    cluster_id = reader.cluster_id()
    beginnings, ends = reader.beginning_offsets(places), reader.end_offsets(places)
    wrong: dict[Place, Corrupt] = {}
    witnesses: dict[Place, Position] = {}
    for position in positions:
        place = position.place
        fault = _fault(position, beginnings[place], ends[place], cluster_id, reader.topic_id(place.topic))
        if fault:
            wrong[place] = log_not_continuous(place, fault)
        elif position.last_event_id and position.next - 1 >= beginnings[place]:
            witnesses[place] = position
    for place, event_id in _read_witnesses(reader, witnesses, deployment=deployment).items():
        expected = witnesses[place].last_event_id
        if event_id != expected:
            fault = f"offset {witnesses[place].next - 1} holds event {event_id}, where {expected} had been read"
            wrong[place] = log_not_continuous(place, fault)
    return wrong


def check_partitions(read_from: Mapping[Place, int], places: Iterable[Place]) -> None:
    """Raises Corrupt where a partition that had been read is no longer there: its topic was made again, smaller."""
    there = set(places)
    topics = {place.topic for place in there}
    for place, offset in sorted(read_from.items()):
        if place.topic in topics and place not in there and offset > 0:
            fault = f"the partition is gone, and had been read up to {offset}: the topic was made again"
            raise log_not_continuous(place, fault)


def _fault(position: Position, beginning: int, end: int, cluster_id: str, topic_id: str) -> str:
    if cluster_id and position.cluster_id and cluster_id != position.cluster_id:
        return f"Kafka's cluster id is {cluster_id}, it was {position.cluster_id}"
    if topic_id and position.topic_id and topic_id != position.topic_id:
        return f"the topic was made again: its id is {topic_id}, it was {position.topic_id}"
    if position.next < beginning:
        return f"offsets {position.next} to {beginning - 1} are gone and had not been read"
    if position.next > end:
        return f"the log ends at offset {end}, and had been read up to {position.next}: it was truncated or made again"
    return ""


def log_not_continuous(place: Place, fault: str) -> Corrupt:
    """The error that stops ingest, with what to do about it."""
    return Corrupt(
        f"{place.topic}[{place.partition}]: {fault}. Ingest stops rather than lose events without a word. If the log"
        f" was replaced on purpose, delete its row in the store's table `ingest_offsets` (topic {place.topic!r},"
        f" partition {place.partition}) and start again: it is then read from its first offset, and ids make sure that"
        " nothing counts twice.",
        reason="LOG_NOT_CONTINUOUS",
    )


def _read_witnesses(reader: LogReader, witnesses: dict[Place, Position], *, deployment: str) -> dict[Place, str]:
    """Event ids at `next` - 1."""
    found: dict[Place, str] = {}
    deadline = time.monotonic() + WITNESS_TIMEOUT_S
    while len(found) < len(witnesses):
        missing = {place: position.next - 1 for place, position in witnesses.items() if place not in found}
        if time.monotonic() > deadline:
            raise Unavailable(f"Kafka did not give {sorted(missing)} within {WITNESS_TIMEOUT_S:g} s", retry_after=1.0)
        reader.assign(missing)
        for record in reader.poll(1.0, max_records=len(missing) * 10):
            if record.place in missing and record.place not in found:
                at_place = record.offset == missing[record.place]
                found[record.place] = read(record, deployment=deployment).event_id if at_place else "(none)"
    return found
