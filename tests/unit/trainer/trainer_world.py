"""A learner without gRPC and Kafka: the real store, releaser and checkpoints, a trainer whose turns the test takes.

A *crash* cuts the trainer off in the middle of a step: from then on every collaborator refuses, as if the process were
gone, and nothing is tidied up. `restart` is a new process on what the dead one left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, cast

from sqlalchemy import select

from services.learner.base_identity import SCRIPTED, BaseIdentity
from services.learner.ports import ReleaseRow
from services.learner.releaser.releaser import Releaser
from services.learner.roles import Ground, make_releaser, make_state
from services.learner.state.release_rows import release_from
from services.learner.trainer import assembly
from services.learner.trainer.cycle import Cycle
from services.learner.trainer.learners import PolicyLearner
from services.learner.trainer.pacing import Pacing
from services.learner.trainer.publication import Deadlines
from services.learner.trainer.status import StatusBoard
from services.reward.base_model import Answer
from services.reward.scripted_base import ScriptedBase
from services.shared.bus.memory import MemoryBus
from services.shared.checkpoints import CheckpointStore
from services.shared.contracts.topics import load_topic_pages
from services.shared.domain.release import ReleaseKind
from services.shared.domain.reward_terms import Terms
from services.shared.domain.score import Score
from services.shared.settings import Settings
from services.shared.settings.model import DeploymentSettings, LearnerSettings, PpoSettings
from services.shared.store.tables import experiences, releases, uses
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import DEPLOYMENT, make_rollout, make_score, make_thumb
from tests.support.learner_store import ManualClock, ingest_facts, open_test_database
from tests.support.patience import eventually

BATCH = 4


class Crash(BaseException):
    """The process is gone."""


class FakeReward:
    """Says 0.75 of everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.failure: Exception | None = None

    def rescore(
        self, items: Sequence[tuple[str, bytes]], *, reward_model_version: str, timeout_s: float
    ) -> list[tuple[float, float, Terms]]:
        if self.failure is not None:
            raise self.failure
        self.asked.append((reward_model_version, tuple(rollout_id for rollout_id, _ in items)))
        return [(0.75, 0.1, (("thumb", 0.5), ("spread", -0.05))) for _ in items]


class Fragile:
    """Passes calls on until the crash; `crash_after` names the call after which it comes."""

    def __init__(self, inner: Any, name: str, world: TrainerWorld) -> None:
        self._inner = inner
        self._name = name
        self._world = world

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._world.crashed:
                raise Crash
            result = value(*args, **kwargs)
            if self._world.crash_after == f"{self._name}.{attribute}" and result is not None:
                self._world.crashed = True
                raise Crash
            return result

        return call


@dataclass(kw_only=True)
class TrainerWorld:
    folder: Path
    base: BaseIdentity = SCRIPTED
    learner: LearnerSettings | None = None
    make_learner: Callable[[], PolicyLearner] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock = ManualClock(1000.0)
        self.reward = FakeReward()
        self.crash_after = ""
        self.crashed = False
        self.paused = False
        self.metrics = Metrics()
        ids = count(1)
        settings = Settings(
            deployment=DeploymentSettings(name=DEPLOYMENT, data_dir=self.folder),
            learner=self.learner or scripted_settings(),
        )
        bus = MemoryBus()
        bus.ensure_topics(load_topic_pages().values())
        self.ground = Ground(
            settings=settings,
            base=self.base,
            database=open_test_database(self.folder),
            bus=bus,
            checkpoints=CheckpointStore((self.folder / "checkpoints").as_uri()),
            metrics=self.metrics,
            clock=self.clock,
            new_id=lambda: f"event-{next(ids)}",
        )
        self.failures: list[BaseException] = []
        self._numbers = count(1)
        self.start()

    def start(self) -> None:
        """A process begins: it takes the lead, its releaser runs, its trainer waits for turns."""
        leadership = self.ground.leadership()
        leadership.take(timeout_s=1.0)
        self.state = make_state(self.ground, leadership.epoch)
        self.releaser: Releaser = make_releaser(self.ground, leadership, self.state, self.failures.append)
        self.releaser.start()
        eventually(lambda: self.live(ReleaseKind.REWARD_MODEL) is not None, what="release 0")
        self.pacing = Pacing(paused=lambda: self.paused, poll_s=0.01)
        self.board = StatusBoard(self.metrics)
        self.cycle = self._make_cycle()

    def restart(self) -> None:
        """The process is gone; another starts on what it left."""
        self.releaser.drain(5.0)
        self.crash_after, self.crashed = "", False
        self.start()

    def stop(self) -> None:
        self.releaser.drain(5.0)
        self.ground.database.close()

    def turn(self) -> bool:
        return self.cycle.turn()

    def turns_until(self, condition: Callable[[], bool], *, most: int = 20) -> None:
        for _ in range(most):
            if condition():
                return
            self.turn()
        assert condition(), f"not within {most} turns; status: {self.board.status}"

    def live(self, kind: ReleaseKind = ReleaseKind.POLICY) -> ReleaseRow | None:
        return self.state.candidates.live(kind)

    def live_version(self, kind: ReleaseKind = ReleaseKind.POLICY) -> str:
        release = self.live(kind)
        assert release is not None
        return release.version

    def rate(
        self, number: int, *, up: Callable[[int], bool] = lambda index: index % 2 == 0, whole: bool = True
    ) -> list[str]:
        """So many rollouts of the live policy, scored by nobody's pinned model yet, each with a thumb.

        Not `whole`: the score lacks the last token's log-prob.
        """
        names = [f"r{next(self._numbers):04d}" for _ in range(number)]
        for index, name in enumerate(names):
            liked = up(index)
            rollout = replace(
                make_rollout(name, versions=((self.live_version(), 4),), rater=f"rater-{index % 7}"),
                response_token_ids=(300, 301, 302, 303) if liked else (310, 311, 312, 313),
            )
            thumb = make_thumb(f"f-{name}", rollout=name, up=liked, rater=f"rater-{index % 7}", seconds=2.0)
            score = scripted_score(rollout)
            if not whole:
                score = replace(score, reference_log_probs=score.reference_log_probs[:-1])
            ingest_facts(self.ground.database, self.clock, [rollout, score, thumb])
        return names

    def states(self) -> dict[str, str]:
        with self.ground.database.read() as connection:
            return {row.rollout_id: row.state for row in connection.execute(select(experiences))}

    def lineage(self) -> list[ReleaseRow]:
        """Published policy releases, oldest first, release 0 left out."""
        with self.ground.database.read() as connection:
            found = connection.execute(select(releases).where(releases.c.kind == ReleaseKind.POLICY.value))
            rows = {row.version: release_from(row) for row in found}
        line, version = [], self.live_version()
        while rows[version].parent_version:
            line.append(rows[version])
            version = rows[version].parent_version
        return line[::-1]

    def used(self, version: str) -> list[str]:
        with self.ground.database.read() as connection:
            return sorted(connection.scalars(select(uses.c.rollout_id).where(uses.c.version == version)))

    def _make_cycle(self) -> Cycle:
        parts = assembly.TrainerParts(
            settings=self.ground.settings,
            base=self.base,
            epoch=self.state.epoch,
            store=Fragile(self.state.experiences, "store", self),
            candidates=Fragile(self.state.candidates, "candidates", self),
            checkpoints=cast(CheckpointStore, Fragile(self.ground.checkpoints, "checkpoints", self)),
            reward=lambda pacing: Fragile(self.reward, "reward", self),
            metrics=self.metrics,
            clock=self.clock,
            paused=lambda: self.paused,
            on_failure=self.failures.append,
            deadlines=Deadlines(verdict_s=10.0, publication_s=10.0, acknowledge_s=0.05),
        )
        with self._learner():
            cycle = assembly.make_cycle(parts, self.pacing, self.board)
        cycle._idle_s = 0.01
        return cycle

    @contextmanager
    def _learner(self) -> Iterator[None]:
        """The learner of this world, able to crash, in place of the one that the settings name."""
        original = assembly.make_policy_learner

        def make(parts: assembly.TrainerParts, scratch: Path, safe_point: Callable[[], None]) -> Any:
            self.policy = self.make_learner() if self.make_learner else original(parts, scratch, safe_point)
            return Fragile(self.policy, "learner", self)

        assembly.make_policy_learner = make
        try:
            yield
        finally:
            assembly.make_policy_learner = original


def scripted_settings(**changes: Any) -> LearnerSettings:
    """Small batches, and a skill gate that is open."""
    values: dict[str, Any] = {
        "trainer": "scripted",
        "reward_min_auroc_low95": 0.0,
        "reward_min_thumbs_of_each": 0,
        "reward_min_new_thumbs": 6,
        "ppo": PpoSettings(rollouts_per_update=BATCH),
    }
    return LearnerSettings(**{**values, **changes})


def scripted_score(rollout: Any) -> Score:
    """A score of a reward model that nobody pins, with the features of the scripted base."""
    base = ScriptedBase()
    result = base.run(
        [Answer(prompt_token_ids=rollout.prompt_token_ids, response_token_ids=rollout.response_token_ids)]
    )[0]
    return replace(
        make_score(rollout, features=result.features),
        feature_layout=base.feature_layout,
        reference_log_probs=result.reference_log_probs,
    )
