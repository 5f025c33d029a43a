"""Events published while something happens to the log or to who reads it, and what must then be in the store.

A chat is a rollout, its score and a thumb, in three topics, the thumb first. Only what was acknowledged is owed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import select

from services.shared.bus.interface import Bus, OutgoingEvent, Place, Publisher, Record
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.scores import encode_score
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.domain.errors import ThumbloopError
from services.shared.domain.feedback import Feedback
from services.shared.domain.rollout import Rollout
from services.shared.domain.score import Score
from services.shared.store.database import Database
from services.shared.store.tables import feedback, ingest_offsets, rollouts, scores
from tests.support.facts import make_rollout, make_score, make_thumb
from tests.support.learner_store import Fact

ACK_TIMEOUT_S = 60.0


def event_of(fact: Fact) -> OutgoingEvent:
    """As its owner publishes it."""
    if isinstance(fact, Rollout):
        return OutgoingEvent(topic=ROLLOUTS, key=fact.rollout_id, value=encode_rollout(fact))
    if isinstance(fact, Feedback):
        return OutgoingEvent(topic=FEEDBACK, key=fact.rollout_id, value=encode_feedback(fact))
    return OutgoingEvent(topic=SCORES, key=fact.rollout_id, value=encode_score(fact))


def chat(name: str) -> list[Fact]:
    """Thumb, rollout, score."""
    rollout = make_rollout(name)
    return [make_thumb(f"f-{name}", rollout=name), rollout, make_score(rollout)]


@dataclass
class Load:
    """What was sent, and what was acknowledged."""

    acknowledged: list[Fact] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    refused: int = 0
    number: int = 0

    def send(self, publisher: Publisher, chats: int, *, prefix: str = "c") -> None:
        """Publishes so many chats, and waits for what became of each event."""
        sent: list[tuple[Fact, Future[Record]]] = []
        for _ in range(chats):
            sent += [(fact, publisher.send(event_of(fact))) for fact in chat(self.next_name(prefix))]
        for fact, future in sent:
            try:
                self.records.append(future.result(timeout=ACK_TIMEOUT_S))
            except ThumbloopError:
                self.refused += 1
            else:
                self.acknowledged.append(fact)

    def next_name(self, prefix: str = "c") -> str:
        """Of the next chat."""
        self.number += 1
        return f"{prefix}{self.number:06}"

    def ids(self, kind: type[Rollout] | type[Score] | type[Feedback]) -> set[str]:
        """Of the acknowledged facts of a kind."""
        return {
            fact.feedback_id if isinstance(fact, Feedback) else fact.rollout_id
            for fact in self.acknowledged
            if isinstance(fact, kind)
        }


@contextmanager
def steady_load(bus: Bus, *, chats_at_once: int = 5, pause_s: float = 0.05) -> Iterator[Load]:
    """A thread that publishes until the block ends."""
    load, publisher, stopping = Load(), bus.publisher("load"), threading.Event()

    def run() -> None:
        while not stopping.wait(pause_s):
            load.send(publisher, chats_at_once)

    thread = threading.Thread(target=run, name="load", daemon=True)
    thread.start()
    try:
        yield load
    finally:
        stopping.set()
        thread.join(2 * ACK_TIMEOUT_S)
        publisher.close(5.0)
    assert not thread.is_alive()


def holders(database: Database) -> dict[str, int]:
    """How many partitions each ingest holds."""
    with database.read() as connection:
        names = list(connection.scalars(select(ingest_offsets.c.holder).where(ingest_offsets.c.holder != "")))
    return {name: names.count(name) for name in names}


def read_from(database: Database) -> dict[Place, int]:
    """The offset of the next record, by partition."""
    with database.read() as connection:
        return {Place(row.topic, row.partition): row.next for row in connection.execute(select(ingest_offsets))}


def missing(database: Database, load: Load) -> dict[str, set[str]]:
    """What was acknowledged and is not in the store, by table."""
    with database.read() as connection:
        stored: dict[str, set[str]] = {
            "rollouts": set(connection.scalars(select(rollouts.c.rollout_id))),
            "scores": set(connection.scalars(select(scores.c.rollout_id))),
            "feedback": set(connection.scalars(select(feedback.c.feedback_id))),
        }
    owed = {"rollouts": load.ids(Rollout), "scores": load.ids(Score), "feedback": load.ids(Feedback)}
    return {table: gone for table in owed if (gone := owed[table] - stored[table])}
