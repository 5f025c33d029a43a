"""Rollouts that the embedded broker may lose stay on disk until the store has them and their scores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.generator import rollout_confirmer
from services.generator.rollout_confirmer import MOST_SENT, RolloutConfirmer
from services.generator.rollout_queue import RolloutQueue
from services.shared.bus.partitioning import partition_of
from services.shared.domain.errors import Unavailable
from services.shared.domain.rollout import RolloutProgress
from services.shared.telemetry.metrics import Metrics
from tests.support.generator_room import until

MISSING, UNSCORED, SETTLED = RolloutProgress.MISSING, RolloutProgress.UNSCORED, RolloutProgress.SETTLED
FIRST, SECOND, THIRD = [name for name in (f"r{number}" for number in range(99)) if partition_of(name, 4) == 0][:3]
ELSEWHERE = next(name for name in (f"r{number}" for number in range(99)) if partition_of(name, 4) == 1)


@dataclass
class Learner:
    """Says what the test told it."""

    progress: dict[str, RolloutProgress] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False
    refused: int = 0

    def find(self, *, tenant: str, rollout_ids: Sequence[str]) -> list[RolloutProgress]:
        if self.away:
            self.refused += 1
            raise Unavailable("the learner is away")
        self.asked += [(tenant, name) for name in rollout_ids]
        return [self.progress.get(name, MISSING) for name in rollout_ids]


@dataclass
class Room:
    """`round` at a time. What waits is sent at once, as the publisher does, unless Kafka is away."""

    queue: RolloutQueue
    learner: Learner = field(default_factory=Learner)
    metrics: Metrics = field(default_factory=lambda: Metrics(room="generator"))
    most_kept: int = 10_000
    now: float = 100.0
    kafka_away: bool = False
    tenants: dict[str, str] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.confirmer = RolloutConfirmer(
            queue=self.queue,
            wake=self.send,
            stored=self.learner,
            metrics=self.metrics,
            clock=lambda: datetime.fromtimestamp(self.now, UTC),
            interval_s=0.01,
            resend_after_s=10,
            unscored_after_s=60,
            most_kept=self.most_kept,
        )

    def put(self, *names: str, tenant: str = "default") -> None:
        for name in names:
            self.tenants[name] = tenant
            self.queue.put(name, b"event")
        self.send()

    def send(self) -> None:
        if not self.kafka_away:
            names = [one.rollout_id for one in self.queue.oldest(1_000)]
            self.queue.keep([(name, self.tenants[name]) for name in names], sent_time=self.now)
            self.sent += names

    async def round(self, *, at: float) -> list[str]:
        """What was sent again."""
        self.now = at
        self.sent.clear()
        await self.confirmer.round()
        return list(self.sent)

    async def sent_at(self, *, until_time: int) -> dict[str, list[int]]:
        """When each was sent again, with a round every ten seconds."""
        times: dict[str, list[int]] = {}
        for at in range(100, until_time, 10):
            for name in await self.round(at=at):
                times.setdefault(name, []).append(at)
        return times

    def kept(self) -> list[str]:
        return [kept.rollout_id for kept in self.queue.kept(1_000, after=0)]


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    queue = RolloutQueue(tmp_path / "rollouts.db")
    yield Room(queue)
    queue.close()


async def test_what_is_settled_leaves_the_disk(room: Room) -> None:
    room.put("r1", "r2")
    room.put("r3", tenant="acme")
    room.learner.progress = {"r1": SETTLED, "r3": SETTLED}
    assert await room.round(at=100) == []
    assert room.kept() == ["r2"]
    assert sorted(room.learner.asked) == [("acme", "r3"), ("default", "r1"), ("default", "r2")]


async def test_what_the_store_lacks_is_sent_again_ever_more_rarely_and_not_for_ever(room: Room) -> None:
    """A rollout that ingest puts aside is never stored, and each attempt makes another dead letter."""
    room.put("r1")
    times = await room.sent_at(until_time=250)
    assert times == {"r1": [110, 130, 170]}
    assert len(times["r1"]) + 1 == MOST_SENT
    assert room.metrics.value("thumbloop_generator_rollouts_resent_total", lacks="rollout") == 3
    assert room.kept() == ["r1"]
    assert await room.round(at=170 + 80) == []
    assert room.kept() == []


async def test_the_attempts_of_earlier_runs_count(tmp_path: Path, room: Room) -> None:
    room.put("r1")
    assert await room.sent_at(until_time=120) == {"r1": [110]}
    again = Room(room.queue, tenants=room.tenants)
    assert [at for at in (112, 122, 131, 132) if await again.round(at=at) == ["r1"]] == [132]


async def test_a_score_is_lost_when_a_later_one_of_its_partition_has_come(room: Room) -> None:
    room.put(FIRST, ELSEWHERE)
    room.now = 105
    room.put(SECOND)
    room.learner.progress = {FIRST: UNSCORED, SECOND: SETTLED, ELSEWHERE: UNSCORED}
    # Sent again it is the last of its partition, and again waits for its turn.
    assert await room.sent_at(until_time=2_000) == {FIRST: [160]}
    assert room.metrics.value("thumbloop_generator_rollouts_resent_total", lacks="score") == 1
    room.put(THIRD)
    room.learner.progress[THIRD] = SETTLED
    assert await room.round(at=2_010) == [FIRST]
    assert sorted(room.kept()) == sorted([FIRST, ELSEWHERE])


async def test_what_was_sent_together_or_settled_out_of_turn_says_nothing_else(room: Room) -> None:
    room.put(SECOND)
    room.queue.put(FIRST, b"event")
    room.queue.put(THIRD, b"event")
    room.tenants |= {FIRST: "default", THIRD: "default"}
    room.send()  # together
    room.learner.progress = {FIRST: UNSCORED, THIRD: SETTLED, SECOND: UNSCORED}
    assert await room.round(at=100) == []
    room.learner.progress[SECOND] = SETTLED
    assert await room.sent_at(until_time=1_000) == {}, "the later one's word stands"
    assert room.kept() == [FIRST]


async def test_an_earlier_one_that_is_settled_late_takes_nothing_back(room: Room) -> None:
    for name in (FIRST, SECOND, THIRD):
        room.put(name)
    room.learner.progress = {FIRST: UNSCORED, SECOND: UNSCORED, THIRD: SETTLED}
    await room.round(at=100)
    room.learner.progress[FIRST] = SETTLED
    await room.round(at=110)
    assert await room.round(at=160) == [SECOND]


async def test_what_was_sent_twice_shows_nothing_of_others(room: Room) -> None:
    """Its first copy may have been scored: `reward` need not have come as far as the second."""
    room.put(FIRST)
    await room.round(at=100)
    room.put(SECOND)
    room.learner.progress = {SECOND: UNSCORED}
    assert await room.round(at=111) == [FIRST]
    room.learner.progress[FIRST] = SETTLED
    assert await room.sent_at(until_time=2_000) == {}
    assert room.kept() == [SECOND]


async def test_while_nothing_is_scored_nothing_is_sent_for_its_score(room: Room) -> None:
    """`reward` is away: more to score would only hold it up when it comes back."""
    room.put("r1", "r2")
    room.learner.progress = {"r1": UNSCORED, "r2": UNSCORED}
    assert await room.sent_at(until_time=5_000) == {}
    assert room.kept() == ["r1", "r2"]


async def test_while_the_learner_is_away_everything_stays(room: Room) -> None:
    room.put("r1")
    room.learner.away = True
    for at in (100, 1_000):
        with pytest.raises(Unavailable):
            await room.round(at=at)
    assert room.metrics.value("thumbloop_generator_kept_rollouts") == 1
    room.learner.away = False
    # A learner that has just started has not read what came meanwhile.
    assert [at for at in (1_001, 1_010, 1_011) if await room.round(at=at)] == [1_011]
    room.learner.away = True
    with pytest.raises(Unavailable):
        await room.round(at=2_000)
    room.learner.away = False
    assert [at for at in (2_001, 2_020, 2_021) if await room.round(at=at)] == [2_021]


async def test_while_kafka_is_away_nothing_more_is_made_to_wait(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits counts against the room that users' answers need."""
    monkeypatch.setattr(rollout_confirmer, "BATCH", 2)
    room.put("r1", "r2")
    room.kafka_away = True
    for number in range(2):
        room.queue.put(f"waits{number}", b"event")
    for at in (1_000, 1_100, 1_200, 1_300):
        await room.round(at=at)
    assert room.queue.count == 2


async def test_a_clock_that_was_set_back_holds_nothing_up(room: Room) -> None:
    room.put("r1")
    await room.round(at=100)
    assert await room.round(at=50) == ["r1"]


async def test_past_the_bound_the_oldest_are_let_go(room: Room) -> None:
    small = Room(room.queue, most_kept=2)
    small.put("r1", "r2", "r3")
    await small.round(at=100)
    assert small.kept() == ["r2", "r3"]
    assert small.metrics.value("thumbloop_generator_kept_rollouts") == 2


async def test_all_have_their_turn(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_confirmer, "BATCH", 3)
    names = [f"r{number}" for number in range(8)]
    room.put(*names)
    for _ in range(3):
        await room.round(at=100)
    assert [name for _, name in room.learner.asked] == names


async def test_the_task_goes_on_after_a_failure_tells_of_it_once_and_ends_when_told(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(rollout_confirmer, "_log", SimpleNamespace(warning=lambda event, **_: told.append(event)))
    room.put("r1")
    room.learner.away = True
    room.confirmer.start()
    await until(lambda: room.learner.refused > 2, what="it asks again")
    assert told == ["rollouts_not_confirmed"]
    room.learner.progress = {"r1": SETTLED}
    room.learner.away = False
    await until(lambda: room.kept() == [], what="it is let go")
    for _ in range(2):
        await room.confirmer.stop()
