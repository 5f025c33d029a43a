"""Ingest on a real broker.

Plan: publish rollouts, scores, thumbs and two unreadable events, in an order in which feedback comes first; run ingest
in its thread; stop it in the middle and start another that holds the same leases; publish half of the events again.
Pass: every id is in the store once, offsets equal the log's ends, the unreadable events lie whole in the dead-letter
topic with their reasons, and the dump equals that of a store that was given the same facts by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select

from services.learner.ingest.ingest import Ingest
from services.learner.state.dump import canonical_dump
from services.shared.bus.interface import Bus, OutgoingEvent, Record
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.scores import encode_score
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES, dead_letter_topic
from services.shared.domain.feedback import Feedback
from services.shared.domain.rollout import Rollout
from services.shared.ids import utc_now
from services.shared.settings.model import BusSettings
from services.shared.store.database import Database
from services.shared.store.tables import feedback, ingest_offsets, rollouts, scores
from tests.support.brokers import TOLD_WITHIN_S
from tests.support.facts import DEPLOYMENT, make_rollout, make_score, make_thumb
from tests.support.learner_store import Fact, ManualClock, ingest_facts, open_test_database
from tests.support.patience import eventually

COUNT = 60


def make_real_ingest(bus: Bus, database: Database, settings: BusSettings) -> tuple[Ingest, list[BaseException]]:
    failures: list[BaseException] = []
    ingest = Ingest(
        bus=bus,
        database=database,
        deployment=DEPLOYMENT,
        clock=utc_now,
        holder="ingest-0",
        lease_ttl_s=5.0,
        embedded=settings.embedded,
        on_failure=failures.append,
    )
    return ingest, failures


def to_event(fact: Fact) -> OutgoingEvent:
    if isinstance(fact, Rollout):
        return OutgoingEvent(topic=ROLLOUTS, key=fact.rollout_id, value=encode_rollout(fact))
    if isinstance(fact, Feedback):
        return OutgoingEvent(topic=FEEDBACK, key=fact.rollout_id, value=encode_feedback(fact))
    return OutgoingEvent(topic=SCORES, key=fact.rollout_id, value=encode_score(fact))


def publish(bus: Bus, events: Sequence[OutgoingEvent]) -> None:
    publisher = bus.publisher("test")
    for acknowledged in [publisher.send(event) for event in events]:
        acknowledged.result(timeout=TOLD_WITHIN_S)
    publisher.close(5)


def counts(database: Database) -> tuple[int, ...]:
    with database.read() as connection:
        return tuple(
            connection.scalar(select(func.count()).select_from(table)) or 0 for table in (rollouts, scores, feedback)
        )


def read_topic(bus: Bus, topic: str, expected: int) -> list[Record]:
    reader = bus.log_reader("test-dead-letters")
    reader.assign(dict.fromkeys(reader.places(topic), 0))
    found: list[Record] = []

    def read_more() -> bool:
        found.extend(reader.poll(0.2))
        return len(found) >= expected

    eventually(read_more, within_s=20)
    reader.close()
    return found


@pytest.mark.kafka
def test_ingest_on_a_broker(bus: Bus, bus_settings: BusSettings, database: Database, tmp_path: Path) -> None:
    made = [make_rollout(f"r{number:03}", seconds=number) for number in range(COUNT)]
    facts: list[Fact] = [make_thumb(f"f{rollout.rollout_id}", rollout=rollout.rollout_id) for rollout in made]
    facts += [*made, *(make_score(rollout) for rollout in made)]
    publish(bus, [to_event(fact) for fact in facts[: len(facts) // 2]])

    first, failures = make_real_ingest(bus, database, bus_settings)
    first.start()
    eventually(lambda: sum(counts(database)) > 0, within_s=30)
    first.stop()
    assert failures == []

    nonsense = [
        OutgoingEvent(topic=topic, key="r000", value=b"\xff\xfe" + topic.encode()) for topic in (FEEDBACK, SCORES)
    ]
    publish(bus, [*nonsense, *(to_event(fact) for fact in facts[len(facts) // 3 :])])
    second, failures = make_real_ingest(bus, database, bus_settings)
    second.start()
    reader = bus.log_reader("test-ends")
    places = [place for topic in (ROLLOUTS, FEEDBACK, SCORES) for place in reader.places(topic)]
    ends = reader.end_offsets(places)
    assert sum(ends.values()) == len(facts) // 2 + 2 + len(facts) - len(facts) // 3

    def offsets() -> dict[tuple[str, int], int]:
        with database.read() as connection:
            return {(row.topic, row.partition): row.next for row in connection.execute(select(ingest_offsets))}

    eventually(lambda: offsets() == {(place.topic, place.partition): end for place, end in ends.items()}, within_s=30)
    second.stop()
    assert failures == []
    assert counts(database) == (COUNT, COUNT, COUNT)
    for event in nonsense:
        (dead,) = read_topic(bus, dead_letter_topic(event.topic), 1)
        assert (dead.key, dead.value) == (event.key, event.value)
        assert dead.headers["dlq-reason"]

    by_hand = open_test_database(tmp_path, "by-hand.db")
    ingest_facts(by_hand, ManualClock(), facts)
    assert canonical_dump(database) == canonical_dump(by_hand)
    by_hand.close()
