"""Ingest against a log whose faults are ordered: nothing lost, nothing twice, nothing hidden."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select

from services.learner.ingest import batch
from services.learner.ingest.ingest import Ingest
from services.learner.state.dump import canonical_dump
from services.shared.bus.interface import Place
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES, dead_letter_topic
from services.shared.domain.errors import Corrupt, Fenced, Unavailable
from services.shared.store.database import Database
from services.shared.store.tables import dead_letters, feedback, ingest_offsets, rollouts
from tests.support.facts import make_rollout, make_score, make_thumb
from tests.support.learner_store import ManualClock, append_fact, make_ingest
from tests.support.patience import eventually
from tests.support.small_log import SmallLog
from tests.support.stores import Stores


@pytest.fixture
def log() -> SmallLog:
    return SmallLog([ROLLOUTS, FEEDBACK, SCORES])


def send(log: SmallLog, *names: str) -> None:
    for name in names:
        rollout = make_rollout(name)
        for fact in (rollout, make_score(rollout), make_thumb(f"f-{name}", rollout=name)):
            append_fact(log, fact)


def read_all(ingest: Ingest) -> int:
    total = 0
    while count := ingest.step():
        total += count
    return total


def stored(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.scalars(select(rollouts.c.rollout_id)))


def offsets(database: Database) -> dict[tuple[str, int], int]:
    with database.read() as connection:
        return {(row.topic, row.partition): row.next for row in connection.execute(select(ingest_offsets))}


def partition_of(log: SmallLog, key: str) -> Place:
    return next(record.place for record in log.values(ROLLOUTS) if record.key == key)


class TestExactlyOnce:
    def test_rows_and_offsets_commit_together(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        send(log, "r1", "r2", "r3")
        ingest = make_ingest(log, database, clock)
        assert read_all(ingest) == 9
        assert stored(database) == {"r1", "r2", "r3"}
        assert sum(offsets(database).values()) == 9

    @pytest.mark.parametrize("step", ["store_rollouts", "store_scores", "store_feedback"])
    def test_killed_between_steps_leaves_nothing_half(
        self, log: SmallLog, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        send(log, "r1", "r2")
        before = canonical_dump(database)

        def die(*_: object) -> None:
            raise SystemExit("killed")

        with monkeypatch.context() as patch:
            patch.setattr(batch, step, die)
            with pytest.raises(SystemExit):
                make_ingest(log, database, clock).step()
        assert canonical_dump(database) == before
        assert set(offsets(database).values()) == {0}
        assert read_all(make_ingest(log, database, clock)) == 6
        assert stored(database) == {"r1", "r2"}

    def test_a_restart_goes_on_where_it_was(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        send(log, "r1")
        assert read_all(make_ingest(log, database, clock)) == 3
        send(log, "r2")
        assert read_all(make_ingest(log, database, clock)) == 3
        assert stored(database) == {"r1", "r2"}

    def test_the_same_events_delivered_twice_change_nothing(
        self, log: SmallLog, stores: Stores, clock: ManualClock
    ) -> None:
        once, twice = stores.open("once"), stores.open("twice")
        send(log, "r1", "r2")
        read_all(make_ingest(log, once, clock))
        send(log, "r1", "r2")
        read_all(make_ingest(log, twice, clock))
        assert canonical_dump(once) == canonical_dump(twice)

    def test_a_new_partition_is_read_too(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        ingest = make_ingest(log, database, clock)
        read_all(ingest)
        rollout = make_rollout("late")
        log.append(ROLLOUTS, "late", encode_rollout(rollout), partition=7)
        clock.advance(4)
        assert read_all(ingest) == 1


class TestLeases:
    def test_two_ingests_share_and_one_takes_over(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        one = make_ingest(log, database, clock, holder="one")
        two = make_ingest(log, database, clock, holder="two")
        send(log, "r1")
        assert (read_all(one), read_all(two)) == (3, 0)
        send(log, "r2")
        clock.advance(10)
        assert read_all(two) == 3
        send(log, "r3")
        with pytest.raises(Fenced):
            one.writer.write([record for record in log.values(ROLLOUTS) if record.key == "r3"], one.assignment.held)
        assert stored(database) == {"r1", "r2"}
        one.forget()
        assert read_all(one) == 0
        assert read_all(two) == 3
        assert stored(database) == {"r1", "r2", "r3"}

    def test_an_ingest_that_ends_gives_its_partitions_back(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        one = make_ingest(log, database, clock, holder="one")
        one.start()
        one.stop()
        assert one.failure is None
        send(log, "r1")
        assert read_all(make_ingest(log, database, clock, holder="two")) == 3


class TestDeadLetters:
    def test_bad_bytes_go_there_whole_with_their_reason(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        send(log, "r1")
        log.append(FEEDBACK, "r1", b"\xff\xfenonsense", {"traceparent": b"00-1"})
        foreign = make_rollout("r9", deployment="elsewhere")
        append_fact(log, foreign)
        send(log, "r2")
        assert read_all(make_ingest(log, database, clock)) == 8
        (nonsense,) = log.values(dead_letter_topic(FEEDBACK))
        assert (nonsense.key, nonsense.value) == ("r1", b"\xff\xfenonsense")
        assert nonsense.headers["traceparent"] == b"00-1"
        assert nonsense.headers["dlq-topic"] == b"feedback" and nonsense.headers["dlq-reason"]
        (other,) = log.values(dead_letter_topic(ROLLOUTS))
        assert other.headers["dlq-reason"] == b"OTHER_DEPLOYMENT"
        assert stored(database) == {"r1", "r2"}
        with database.read() as connection:
            assert sum(connection.scalars(select(dead_letters.c.count))) == 2

    def test_an_unacknowledged_dead_letter_holds_the_offset(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        log.append(FEEDBACK, "r1", b"\xff\xfenonsense")
        log.refuse_sends = True
        ingest = make_ingest(log, database, clock)
        with pytest.raises(Unavailable):
            ingest.step()
        assert set(offsets(database).values()) == {0}
        log.refuse_sends = False
        ingest.forget()
        assert read_all(ingest) == 1
        assert len(log.values(dead_letter_topic(FEEDBACK))) == 1

    def test_a_stream_of_them_stops_ingest_also_after_restarts(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        for number in range(300):
            log.append(FEEDBACK, "r1", f"bad {number}".encode())
        for _ in range(5):
            ingest = make_ingest(log, database, clock, max_records=30)
            with pytest.raises(Corrupt, match="cannot be read"):
                read_all(ingest)
        assert len(log.values(dead_letter_topic(FEEDBACK))) <= 100

    def test_an_unreadable_last_event_is_known_again(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        log.append(FEEDBACK, "r1", b"\xff\xfenonsense")
        assert read_all(make_ingest(log, database, clock)) == 1
        send(log, "r2")
        assert read_all(make_ingest(log, database, clock)) == 3


class TestAnotherLog:
    """The record at `next` - 1 must be the one that was read."""

    def test_a_truncated_log_stops_it(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        send(log, "r1", "r2", "r3")
        read_all(make_ingest(log, database, clock))
        place = partition_of(log, "r1")
        log.truncate(place, log.partitions[place].end - 1)
        with pytest.raises(Corrupt, match="truncated or made again"):
            make_ingest(log, database, clock).step()

    def test_a_topic_made_again_and_grown_further_stops_it(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        send(log, "r1", "r2", "r3")
        read_all(make_ingest(log, database, clock))
        log.remake(FEEDBACK)
        for number in range(20):
            thumb = make_thumb(f"new{number}", rollout=f"r{number % 3 + 1}")
            log.append(FEEDBACK, thumb.rollout_id, encode_feedback(thumb))
        with pytest.raises(Corrupt, match="the topic was made again"):
            make_ingest(log, database, clock).step()
        assert stored(database) == {"r1", "r2", "r3"}

    def test_a_gap_stops_it(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        send(log, "r1", "r2", "r3")
        ingest = make_ingest(log, database, clock)
        read_all(ingest)
        place = partition_of(log, "r1")
        send(log, "r1", "r2", "r3", "r4")
        log.expire(place, log.partitions[place].end)
        with pytest.raises(Corrupt, match="gone"):
            make_ingest(log, database, clock).step()

    def test_retention_of_what_was_read_is_no_gap(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        send(log, "r1", "r2", "r3")
        read_all(make_ingest(log, database, clock))
        for place, part in log.partitions.items():
            log.expire(place, part.end)
        send(log, "r4")
        assert read_all(make_ingest(log, database, clock)) == 3

    def test_another_cluster_stops_it(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        send(log, "r1")
        read_all(make_ingest(log, database, clock))
        log.cluster = "cluster-2"
        with pytest.raises(Corrupt, match="cluster id"):
            make_ingest(log, database, clock).step()

    def test_it_looks_again_after_kafka_was_away(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        send(log, "r1", "r2")
        ingest = make_ingest(log, database, clock)
        read_all(ingest)
        log.away = True
        with pytest.raises(Unavailable):
            ingest.step()
        ingest.forget()
        log.away = False
        log.remake(ROLLOUTS)
        with pytest.raises(Corrupt):
            ingest.step()

    def test_the_embedded_broker_may_lose_its_tail(self, log: SmallLog, database: Database, clock: ManualClock) -> None:
        send(log, "r1", "r2", "r3")
        ingest = make_ingest(log, database, clock, embedded=True)
        read_all(ingest)
        before = canonical_dump(database)
        for place, part in log.partitions.items():
            log.truncate(place, part.end // 2)
        ingest.step()  # the reader finds its offset gone, and looks again
        read_all(ingest)
        assert canonical_dump(database) == before
        send(log, "r4", "r1")
        read_all(ingest)
        assert stored(database) == {"r1", "r2", "r3", "r4"}
        assert offsets(database) == {(place.topic, place.partition): part.end for place, part in log.partitions.items()}

    def test_the_embedded_broker_may_put_others_in_their_place(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        send(log, "r1", "r2")
        read_all(make_ingest(log, database, clock, embedded=True))
        for topic in (ROLLOUTS, FEEDBACK, SCORES):
            log.remake(topic)
        log.cluster = "cluster-2"
        send(log, "r5", "r6", "r7")
        read_all(make_ingest(log, database, clock, embedded=True))
        assert stored(database) == {"r1", "r2", "r5", "r6", "r7"}


def test_the_thread_waits_for_kafka_and_stops_with_a_word(
    log: SmallLog, database: Database, clock: ManualClock
) -> None:
    told = threading.Event()
    ingest = make_ingest(log, database, clock)
    ingest._on_failure = lambda error: told.set()
    log.away = True
    ingest.start()
    send(log, "r1")
    log.away = False
    eventually(lambda: stored(database) == {"r1"})
    log.truncate(partition_of(log, "r1"), 0)
    assert told.wait(10)
    assert isinstance(ingest.failure, Corrupt)
    ingest.stop()


def test_feedback_before_its_rollout_waits(log: SmallLog, database: Database, clock: ManualClock) -> None:
    append_fact(log, make_thumb("f1", rollout="r1"))
    read_all(make_ingest(log, database, clock))
    with database.read() as connection:
        assert connection.scalar(select(feedback.c.feedback_id)) == "f1"
    append_fact(log, make_rollout("r1"))
    read_all(make_ingest(log, database, clock))
    assert any(line.startswith("experiences") and '"rated":true' in line for line in canonical_dump(database))
