"""A person is forgotten while the trainer is at their words: no release comes of it, and the rest is used again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from services.learner.forgetting.forgetting import Forgetting
from services.learner.reward_training.train_heads import train_heads
from services.learner.trainer.cycle import Cycle
from services.learner.trainer.held import HeldRollouts
from services.learner.trainer.learners import ScoredExperience
from services.learner.trainer.pacing import Pacing, Stopped
from services.learner.trainer.scripted_policy import ScriptedPolicy
from services.learner.trainer.status import StatusBoard
from services.learner.trainer.trainer import Trainer
from services.shared.domain.errors import FailedPrecondition
from services.shared.domain.release import ReleaseKind
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import TENANT
from tests.unit.trainer.trainer_world import BATCH, TrainerWorld

ORDER = "01993f35-90b3-7a02-b9c4-6d18e5f30a66"
RATER = "rater-0"
"""Whose rollout is the first of each batch."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TrainerWorld]:
    world = TrainerWorld(folder=tmp_path)
    yield world
    assert world.failures == []
    world.stop()


def forget(world: TrainerWorld) -> None:
    forgetting = Forgetting(world.ground.database, clock=world.clock)
    forgetting.forget(tenant=TENANT, rater_ids=[RATER], control_id=ORDER)


def while_scoring(world: TrainerWorld, then: Any) -> None:
    """Calls `then` once, while the next batch is being scored."""
    rescore, todo = world.reward.rescore, [then]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        while todo:
            todo.pop()()
        return rescore(*args, **kwargs)

    world.reward.rescore = interrupted  # type: ignore[method-assign]  # from here on


def test_a_batch_in_memory_is_given_up_at_the_next_safe_point(world: TrainerWorld) -> None:
    names = world.rate(BATCH)

    def order() -> None:
        forget(world)
        assert world.pacing.held.abandon(names[:1])

    while_scoring(world, order)
    with pytest.raises(FailedPrecondition) as given_up:
        world.turns_until(lambda: False)
    assert given_up.value.reason == "EXPERIENCE_FORGOTTEN"
    assert not world.pacing.held.abandon(names)
    assert world.states() == dict.fromkeys(names[1:], "open")
    assert world.lineage() == []
    more = world.rate(1, up=lambda index: False)  # rater-0 again, under a name that is blocked
    assert more[0] not in world.states()


def test_a_candidate_that_learned_from_them_is_not_submitted(world: TrainerWorld) -> None:
    """The order itself has not come to the trainer yet."""
    names = world.rate(BATCH)
    while_scoring(world, lambda: forget(world))
    world.turns_until(lambda: RATER not in str(world.states()) and names[0] not in world.states())
    assert world.states() == dict.fromkeys(names[1:], "open")
    assert world.lineage() == []
    others = world.rate(2)[1:]
    world.turns_until(lambda: bool(world.lineage()))
    assert world.used(world.live_version()) == sorted([*names[1:], *others])


def test_a_reward_model_that_learned_from_them_is_not_released(world: TrainerWorld) -> None:
    world.rate(4 * BATCH)
    train, todo = world.ground.checkpoints.put_release, [lambda: forget(world)]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        while todo:
            todo.pop()()
        return train(*args, **kwargs)

    world.ground.checkpoints.put_release = interrupted  # type: ignore[method-assign]  # from here on
    before = world.live_version(ReleaseKind.REWARD_MODEL)
    world.turns_until(lambda: not todo)
    assert world.live_version(ReleaseKind.REWARD_MODEL) == before and world.lineage() == []
    world.turns_until(lambda: world.live_version(ReleaseKind.REWARD_MODEL) != before)
    release = world.live(ReleaseKind.REWARD_MODEL)
    assert release is not None
    manifest = world.ground.checkpoints.read_manifest(release.checkpoint_path, release.manifest_sha256)
    assert set(manifest.rollout_ids) <= set(world.states())


def test_reward_training_is_given_up_at_its_next_safe_point(
    world: TrainerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order comes while the heads are being fitted: what is in memory of them counts as held until it is gone."""
    names = world.rate(4 * BATCH)
    todo = [True]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if todo:
            todo.pop()
            forget(world)
            assert world.pacing.held.abandon(names[:1])
        return train_heads(*args, **kwargs)

    monkeypatch.setattr("services.learner.reward_training.reward_trainer.train_heads", interrupted)
    before = world.live_version(ReleaseKind.REWARD_MODEL)
    with pytest.raises(FailedPrecondition) as given_up:
        world.turns_until(lambda: False)
    assert given_up.value.reason == "EXPERIENCE_FORGOTTEN"
    assert not world.pacing.held.abandon(names)
    assert world.live_version(ReleaseKind.REWARD_MODEL) == before
    world.turns_until(lambda: world.live_version(ReleaseKind.REWARD_MODEL) != before)
    assert not {names[0], names[7], names[14]} & set(world.used(world.live_version(ReleaseKind.REWARD_MODEL)))


def test_what_is_just_being_read_counts_as_held(world: TrainerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that comes between the look into the store and the knowledge of what was found has to come again."""
    names = world.rate(4 * BATCH)
    read, said = world.state.experiences.rated_examples, []

    def looking(**values: Any) -> Any:
        if not values:  # all of them: for a training
            said.append(world.pacing.held.abandon(["anybody's"]))
        return read(**values)

    monkeypatch.setattr(world.state.experiences, "rated_examples", looking)
    world.turns_until(lambda: bool(said))
    assert said == [True] and not world.pacing.held.abandon(names)


class KeepsPrompts(ScriptedPolicy):
    """Keeps the first batch from then on, as the gate's prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.kept_rollouts = frozenset()

    def measure(self, batch: Sequence[ScoredExperience]) -> Mapping[str, float]:
        self.kept_rollouts = self.kept_rollouts or frozenset(item.experience.rollout.rollout_id for item in batch)
        return super().measure(batch)

    def forget(self, rollout_ids: Collection[str]) -> None:
        self.kept_rollouts -= frozenset(rollout_ids)


@pytest.mark.parametrize("paused", [False, True])
def test_what_is_kept_between_batches_counts_as_held_until_it_is_dropped(tmp_path: Path, paused: bool) -> None:
    world = TrainerWorld(folder=tmp_path, make_learner=KeepsPrompts)
    names = world.rate(BATCH)
    world.turns_until(lambda: bool(world.lineage()))
    assert world.policy.kept_rollouts == set(names)
    assert not world.pacing.held.abandon(["anybody's"])
    assert world.pacing.held.abandon(names[:1])
    world.paused = paused
    world.turn()
    assert world.policy.kept_rollouts == set(names[1:])
    assert not world.pacing.held.abandon(names[:1])
    world.stop()


def test_the_trainers_thread_goes_on() -> None:
    turns: list[str] = []

    class Turns:
        """Given up once, then stopped."""

        def turn(self) -> bool:
            turns.append("turn")
            if len(turns) == 1:
                raise FailedPrecondition("forgotten", reason="EXPERIENCE_FORGOTTEN")
            raise Stopped

    failures: list[BaseException] = []
    trainer = Trainer(lambda: cast(Cycle, Turns()), Pacing(), StatusBoard(Metrics()), failures.append)
    trainer.start()
    assert trainer.drain(10.0)
    assert (len(turns), failures) == (2, [])


def test_what_is_held_is_abandoned_together_and_forgotten_when_let_go() -> None:
    held = HeldRollouts()
    assert not held.abandon(["a"])
    held.check()
    held.hold(["a", "b"])
    assert not held.abandon(["c"])
    held.check()
    assert held.abandon(["b", "c"])
    with pytest.raises(FailedPrecondition):
        held.check()
    held.let_go()
    held.check()
    assert not held.abandon(["a"])
    held.about_to_hold()
    assert held.abandon(["a"])
    held.check()


def test_what_is_kept_is_dropped_once() -> None:
    held = HeldRollouts()
    held.keep(["a", "b"])
    assert not held.abandon(["c"])
    assert held.abandon(["b", "c"]) and held.to_drop == {"b"}
    held.about_to_hold()
    assert held.abandon(["a"])
    held.hold(["d"])
    held.check()
    assert held.to_drop == {"a", "b"}
    held.keep([])
    assert held.to_drop == frozenset() and not held.abandon(["a", "b"])
