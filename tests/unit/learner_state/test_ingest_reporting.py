"""What ingest tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.learner.ingest.feedback_gauges import FeedbackGauges
from services.learner.ingest.ingest import Ingest
from services.learner.ingest.offset_mirror import OffsetMirror
from services.learner.ingest.reporting import Reporting
from services.learner.state.past_retention import raise_floor
from services.shared.bus.interface import Place
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.domain.errors import Unavailable
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import DEPLOYMENT, make_feedback, make_rollout, make_thumb
from tests.support.learner_store import ManualClock, append_fact, ingest_facts, open_test_database
from tests.support.patience import eventually
from tests.support.small_log import SmallLog


class Group:
    """`GroupOffsets` that remembers, and may be away."""

    def __init__(self) -> None:
        self.commits: list[dict[Place, int]] = []
        self.away = False
        self.closed = False

    def commit(self, positions: Mapping[Place, int]) -> None:
        if self.away:
            raise Unavailable("the coordinator is away")
        self.commits.append(dict(positions))

    def close(self) -> None:
        self.closed = True


class Room:
    """One ingest with all its reporting, on a log in memory."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(seconds=0)
        self.log = SmallLog([ROLLOUTS, FEEDBACK, SCORES])
        self.metrics = Metrics()
        self.group = Group()
        self.database = open_test_database(folder)

    def ingest(self, holder: str) -> Ingest:
        gauges = FeedbackGauges(self.database, self.metrics, clock=self.clock, join_window_s=100, orphan_after_s=1000)
        mirror = OffsetMirror(self.group, interval_s=0.01)
        return Ingest(
            bus=self.log,
            database=self.database,
            deployment=DEPLOYMENT,
            clock=self.clock,
            holder=holder,
            lease_ttl_s=10.0,
            embedded=False,
            on_failure=lambda error: None,
            max_records=3,
            reporting=Reporting(self.metrics, clock=self.clock, feedback=gauges, mirror=mirror),
        )

    def lag(self, topic: str) -> dict[int, float]:
        found = {
            number: self.metrics.value("thumbloop_ingest_lag_events", topic=topic, partition=str(number))
            for number in (0, 1)
        }
        return {number: value for number, value in found.items() if value is not None}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_records_are_counted_by_topic_and_outcome(room: Room) -> None:
    for number in range(4):
        append_fact(room.log, make_rollout(f"r{number}"))
    room.log.append(FEEDBACK, "r1", b"\xff\xfenonsense")
    ingest = room.ingest("one")
    while ingest.step():
        pass
    assert room.metrics.value("thumbloop_ingest_events_total", topic=ROLLOUTS, outcome="stored") == 4
    assert room.metrics.value("thumbloop_ingest_events_total", topic=FEEDBACK, outcome="dead_letter") == 1
    text = room.metrics.render().decode()
    assert 'thumbloop_ingest_dead_letters_total{reason="' in text and 'topic="feedback"} 1.0' in text


def test_what_is_past_retention_is_counted_and_left_out(room: Room) -> None:
    with room.database.write() as connection:
        raise_floor(connection, "r2", now=room.clock())
    for number in range(4):
        append_fact(room.log, make_rollout(f"r{number}"))
    ingest = room.ingest("one")
    while ingest.step():
        pass
    stored = room.metrics.value("thumbloop_ingest_events_total", topic=ROLLOUTS, outcome="stored")
    left_out = room.metrics.value("thumbloop_ingest_events_total", topic=ROLLOUTS, outcome="past_retention")
    assert (stored, left_out) == (2, 2)


def test_the_lag_of_a_partition_is_shown_by_who_reads_it(room: Room) -> None:
    for _ in range(5):
        append_fact(room.log, make_rollout("r1"))
    place = next(record.place for record in room.log.values(ROLLOUTS))
    one = room.ingest("one")
    one.step()  # three records, and the first look at the log's ends
    assert room.lag(ROLLOUTS) == {place.partition: 2.0, 1 - place.partition: 0.0}
    one.step()
    room.clock.advance(6)
    one.step()
    assert room.lag(ROLLOUTS) == {0: 0.0, 1: 0.0}
    other = room.ingest("two")
    for _ in range(3):
        other.step()
        room.clock.advance(6)
        one.step()
    assert len(one.assignment.held) == 3
    room.metrics.remove("thumbloop_ingest_lag_events", topic=ROLLOUTS, partition="9")  # never shown: nothing happens
    shown = sum(len(room.lag(topic)) for topic in (ROLLOUTS, FEEDBACK, SCORES))
    assert shown == 6  # both share this registry: each shows its own, and takes away what it no longer has


def test_waiting_feedback_and_its_age_are_shown_by_one_process(room: Room) -> None:
    append_fact(room.log, make_thumb("early", rollout="r1", seconds=0))
    append_fact(room.log, make_thumb("f2", rollout="r2", seconds=0))
    append_fact(room.log, make_feedback("f3", rollout="r3", retracted=True, seconds=0))
    append_fact(room.log, make_rollout("r2"))
    one = room.ingest("one")
    while one.step():
        pass
    room.clock.advance(40)
    one.step()
    states = {
        state: room.metrics.value("thumbloop_feedback_state", state=state)
        for state in ("waiting", "joined", "retracted")
    }
    assert states == {"waiting": 1, "joined": 1, "retracted": 1}
    assert room.metrics.value("thumbloop_feedback_waiting") == 1
    assert room.metrics.value("thumbloop_feedback_oldest_waiting_seconds") == 40
    room.clock.advance(1001)
    one.step()
    assert room.metrics.value("thumbloop_feedback_state", state="orphaned") == 1
    assert room.metrics.value("thumbloop_feedback_oldest_waiting_seconds") == 0
    first = room.ingest("a-name-before-one")
    first.step()
    assert first.assignment.leads
    room.clock.advance(16)
    first.step()
    one.step()
    assert not one.assignment.leads
    assert room.metrics.value("thumbloop_feedback_state", state="orphaned") is None


def test_orphans_do_not_stand_before_what_waits(room: Room) -> None:
    gauges = FeedbackGauges(
        room.database, room.metrics, clock=room.clock, join_window_s=100, orphan_after_s=1000, dangling=3
    )
    orphans = [make_thumb(f"f{number}", rollout=f"r{number}", seconds=0) for number in range(5)]
    ingest_facts(room.database, room.clock, orphans)
    room.clock.advance(5000)
    ingest_facts(room.database, room.clock, [make_thumb("f8", rollout="r8", seconds=4990)])
    gauges.refresh()
    assert room.metrics.value("thumbloop_feedback_waiting") == 1
    assert room.metrics.value("thumbloop_feedback_oldest_waiting_seconds") == 10


def test_a_look_that_fails_stops_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the two, and it is not tried at each turn."""
    failed: list[str] = []

    def away(name: str) -> Any:
        def fail(*_: object) -> None:
            failed.append(name)
            raise Unavailable(f"{name} is away")

        return fail

    ingest = room.ingest("one")
    ingest.step()
    monkeypatch.setattr(FeedbackGauges, "refresh", away("the store"))
    monkeypatch.setattr(ingest._reader, "end_offsets", away("Kafka"))
    room.clock.advance(3)
    ingest.step()  # the leases are renewed
    for number in range(4):
        append_fact(room.log, make_rollout(f"r{number}"))
    room.clock.advance(3)
    assert [ingest.step() for _ in range(3)] == [3, 1, 0]
    for _ in range(3):
        room.clock.advance(3)
        ingest.step()
    assert len(ingest.assignment.held) == 6 and not ingest.waiting
    assert (failed.count("Kafka"), failed.count("the store")) == (2, 1)
    assert room.metrics.value("thumbloop_ingest_events_total", topic=ROLLOUTS, outcome="stored") == 4


def test_offsets_are_mirrored_beside_ingest_and_never_hold_it_up(room: Room) -> None:
    room.group.away = True
    append_fact(room.log, make_rollout("r1"))
    place = next(record.place for record in room.log.values(ROLLOUTS))
    ingest = room.ingest("one")
    ingest.start()
    eventually(lambda: room.metrics.value("thumbloop_ingest_events_total", topic=ROLLOUTS, outcome="stored") == 1)
    assert room.group.commits == []
    room.group.away = False
    eventually(lambda: any(commit.get(place) == 1 for commit in room.group.commits))
    before = len(room.group.commits)
    ingest.stop()
    assert room.group.closed and len(room.group.commits) <= before + 1  # what has not changed is not sent again
