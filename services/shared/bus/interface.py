"""The log between services, as the rooms see it.

A *record* is an event's bytes at a place (topic, partition, offset). A *publisher* may be used from any thread. A
*reader* belongs to one thread: a `LogReader` is told where to read (`assign`), a `GroupReader` shares a topic with its
group and remembers where it was. Delivery is at least once in both; effects are made exactly once by ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from services.shared.contracts.topics import TopicPage

REBALANCED = "REBALANCED"
"""Reason of an `Unavailable`: what is to be committed belongs to another member by now, or to this one anew."""
RECORD_UNREADABLE = "RECORD_UNREADABLE"
"""Reason of a `Corrupt` that reading again from the same place does not mend."""


class Place(NamedTuple):
    """A partition."""

    topic: str
    partition: int


@dataclass(frozen=True, kw_only=True)
class OutgoingEvent:
    """An event on its way. `topic` is a page's name, without prefix; `key` chooses the partition."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Record:
    """An event in the log."""

    place: Place
    offset: int
    key: str
    value: bytes
    headers: Mapping[str, bytes]
    timestamp: datetime


class Publisher(Protocol):
    """Sends events with acks=all."""

    def send(self, event: OutgoingEvent) -> Future[Record]:
        """Never blocks. The future holds the acknowledged record, or fails: Busy (too much in flight), Unavailable
        (no acknowledgement within `ack_timeout_s`; the event may still have been written), InvalidInput (too large).
        """

    async def publish(self, event: OutgoingEvent) -> Record:
        """`send` for asyncio: returns when Kafka has the event."""

    def close(self, timeout_s: float) -> None:
        """Waits for what is in flight, at most so long. Twice is once."""


class LogReader(Protocol):
    """Reads where it is told to."""

    def places(self, topic: str) -> Sequence[Place]:
        """All partitions of a topic, as of now. Raises Unavailable."""

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Replaces the assignment; each partition is read from its offset on."""

    def poll(self, timeout_s: float, max_records: int = 500) -> list[Record]:
        """Next records, in order within a partition. Empty after the timeout. Raises Unavailable when Kafka is away,
        Corrupt when an assigned offset no longer exists in the log.
        """

    def beginning_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        """First offsets kept."""

    def end_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        """Offsets past the last records."""

    def cluster_id(self) -> str:
        """Identity of the Kafka cluster; "" where the broker has none."""

    def topic_id(self, topic: str) -> str:
        """As of the last `places`: identity of a topic, another one when it was made again; "" where the broker has
        none."""

    def incarnations(self, places: Iterable[Place]) -> dict[Place, str]:
        """As of the last `places`: a word for each that changes when its log may be another one, or a shorter one:
        the cluster, the topic's id (a topic made again has another), the partition's leader and its epoch."""

    def close(self) -> None:
        """Twice is once."""


class GroupReader(Protocol):
    """Shares a topic with its group, as a static member (KIP-345)."""

    def poll(self, timeout_s: float, max_records: int = 500) -> list[Record]:
        """Next records since the last commit of the group. Empty after the timeout. Raises Unavailable."""

    def commit(self, records: Sequence[Record]) -> None:
        """The group has dealt with these records and all before them."""

    def close(self) -> None:
        """Twice is once."""


class GroupOffsets(Protocol):
    """Offsets of a group without members, written for others to see. Belongs to one thread."""

    def commit(self, positions: Mapping[Place, int]) -> None:
        """The group is at these offsets. Raises Unavailable."""

    def close(self) -> None:
        """Twice is once."""


class Bus(Protocol):
    """Opens the above. One a process."""

    def ensure_topics(self, pages: Iterable[TopicPage]) -> None:
        """Creates what is missing, with dead-letter topics; changes nothing that exists. Raises Unavailable."""

    def publisher(self, client_id: str) -> Publisher:
        """A producer. Does not need Kafka to be there yet."""

    def log_reader(self, client_id: str) -> LogReader:
        """A reader of assigned partitions."""

    def group_reader(self, *, group: str, member_id: str, topic: str) -> GroupReader:
        """A static member `member_id` of `group`. Starts at the topic's beginning when the group is new."""

    def group_offsets(self, group: str) -> GroupOffsets:
        """The offsets of a group that nobody joins."""

    def delete_records(self, before: Mapping[Place, int]) -> None:
        """Takes records from the beginning of partitions, up to these offsets: no reader gets them any more. (The
        broker frees their disk when it next cleans up.) Raises NotSupported where the broker cannot, Unavailable.
        """

    def close(self) -> None:
        """Closes what it opened."""
