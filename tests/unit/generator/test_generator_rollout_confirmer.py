"""Rollouts that the embedded broker may lose stay on disk until the store has them and their scores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.generator import rollout_confirmer
from services.generator.rollout_confirmer import MOST_RESCORED, RolloutConfirmer
from services.generator.rollout_queue import RolloutQueue
from services.shared.contracts.rollouts import encode_rollout
from services.shared.domain.errors import Unavailable
from services.shared.domain.rollout import RolloutProgress
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import make_rollout
from tests.support.generator_room import until

MISSING, UNSCORED, SETTLED = RolloutProgress.MISSING, RolloutProgress.UNSCORED, RolloutProgress.SETTLED


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
    """`round` at a time, after which everything that waits is sent, as the publisher does."""

    queue: RolloutQueue
    learner: Learner = field(default_factory=Learner)
    metrics: Metrics = field(default_factory=lambda: Metrics(room="generator"))
    most_kept: int = 10_000
    now: float = 100.0
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.confirmer = RolloutConfirmer(
            queue=self.queue,
            wake=self.send,
            stored=self.learner,
            metrics=self.metrics,
            interval_s=0.01,
            resend_after_s=10,
            unscored_after_s=60,
            most_kept=self.most_kept,
            monotonic=lambda: self.now,
        )

    def put(self, *names: str, tenant: str = "default") -> None:
        for name in names:
            self.queue.put(name, encode_rollout(make_rollout(name, tenant=tenant)))
        self.send()

    def send(self) -> None:
        names = [name for name, _ in self.queue.oldest(1_000)]
        self.queue.keep(names)
        self.sent += names

    async def round(self, *, at: float | None = None) -> list[str]:
        """What was sent again."""
        self.now = self.now if at is None else at
        self.sent.clear()
        await self.confirmer.round()
        return self.sent

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
    assert await room.round() == []
    assert room.kept() == ["r2"]
    assert sorted(room.learner.asked) == [("acme", "r3"), ("default", "r1"), ("default", "r2")]
    assert room.metrics.value("thumbloop_generator_kept_rollouts") == 1


async def test_what_the_store_lacks_is_sent_again_ever_more_rarely(room: Room) -> None:
    room.put("r1")
    sent = {at: await room.round(at=at) == ["r1"] for at in (100, 109, 110, 129, 130, 169, 170)}
    assert sent == {100: False, 109: False, 110: True, 129: False, 130: True, 169: False, 170: True}
    assert room.metrics.value("thumbloop_generator_rollouts_resent_total", lacks="rollout") == 3
    assert room.kept() == ["r1"]


async def test_what_younger_ones_overtook_is_scored_again_and_no_more_than_a_few_times(room: Room) -> None:
    room.put("r1", "r2")
    room.learner.progress = {"r1": UNSCORED, "r2": SETTLED}
    times = [at for at in range(100, 2_500, 10) if await room.round(at=at) == ["r1"]]
    assert times == [160, 280, 520]
    assert len(times) == MOST_RESCORED
    assert room.kept() == [], "reward has put it aside"
    assert room.metrics.value("thumbloop_generator_rollouts_resent_total", lacks="score") == 3


async def test_while_nothing_is_scored_nothing_is_sent_for_its_score(room: Room) -> None:
    """`reward` is away: more to score would only hold it up when it comes back."""
    room.put("r1", "r2")
    room.learner.progress = {"r1": UNSCORED, "r2": UNSCORED}
    for at in range(100, 5_000, 100):
        assert await room.round(at=at) == []
    assert room.kept() == ["r1", "r2"]


async def test_while_the_learner_is_away_everything_stays(room: Room) -> None:
    room.put("r1")
    room.learner.away = True
    for at in (100, 1_000):
        with pytest.raises(Unavailable):
            await room.round(at=at)
    room.learner.away = False
    assert await room.round() == []
    assert await room.round(at=1_010) == ["r1"]


async def test_past_the_bound_the_oldest_are_let_go(room: Room) -> None:
    small = Room(room.queue, most_kept=2)
    small.put("r1", "r2", "r3")
    await small.round()
    assert small.kept() == ["r2", "r3"]


async def test_all_have_their_turn(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_confirmer, "BATCH", 3)
    names = [f"r{number}" for number in range(8)]
    room.put(*names)
    for _ in range(3):
        await room.round()
    assert [name for _, name in room.learner.asked] == names


async def test_the_task_goes_on_after_a_failure_and_ends_when_told(room: Room) -> None:
    room.put("r1")
    room.learner.away = True
    room.confirmer.start()
    await until(lambda: room.learner.refused > 1, what="it asks again")
    room.learner.progress = {"r1": SETTLED}
    room.learner.away = False
    await until(lambda: room.kept() == [], what="it is let go")
    for _ in range(2):
        await room.confirmer.stop()
