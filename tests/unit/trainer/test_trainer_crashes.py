"""Killed between any two steps, the trainer goes on from the live release, and no experience is trained twice.

For each step: three batches are rated, the process dies right after the step, another starts. Pass: within some turns
every experience is used by exactly one release of the live lineage, and the policy's own record (a digest chained over
the batches it saw) equals the one computed from the lineage in the store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.learner.ports import ReleaseRow
from services.learner.trainer.scripted_policy import ScriptedPolicy
from tests.unit.trainer.trainer_world import BATCH, Crash, TrainerWorld, scripted_settings

STEPS = [
    "store.claim",
    "reward.rescore",
    "learner.update",
    "learner.measure",
    "learner.save",
    "checkpoints.put_release",
    "candidates.verdict",
    "candidates.acknowledged_by",
]


@pytest.mark.parametrize("step", [*STEPS, "candidates.submit"])
def test_killed_after(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = TrainerWorld(folder=tmp_path, learner=scripted_settings(reward_min_new_thumbs=1000))
    if step == "candidates.acknowledged_by":
        world.stop()
        # That step belongs to the reward model's half of the cycle.
        world = TrainerWorld(folder=tmp_path / "other")
    names = world.rate(3 * BATCH)
    world.crash_after = step
    submit = world.state.candidates.submit
    if step == "candidates.submit":

        def submit_and_die(*args: Any) -> None:
            submit(*args)
            world.crashed = True
            raise Crash

        monkeypatch.setattr(world.state.candidates, "submit", submit_and_die)
    with pytest.raises(Crash):
        for _ in range(10):
            world.turn()
    world.restart()
    world.turns_until(lambda: len(world.lineage()) == 3)
    line = world.lineage()
    assert sorted(name for release in line for name in world.used(release.version)) == names
    assert set(world.states().values()) == {"used"}
    assert isinstance(world.policy, ScriptedPolicy)
    assert world.policy.state == _told_by(world, line)
    assert world.failures == []
    world.stop()


def _told_by(world: TrainerWorld, line: list[ReleaseRow]) -> tuple[int, str]:
    """The record of a learner that saw exactly the lineage's batches, from their manifests."""
    from dataclasses import dataclass
    from types import SimpleNamespace

    @dataclass
    class Seen:
        experience: object

    learner = ScriptedPolicy()
    for release in line:
        manifest = world.ground.checkpoints.read_manifest(release.checkpoint_path, release.manifest_sha256)
        batch: Any = [Seen(SimpleNamespace(rollout=SimpleNamespace(rollout_id=name))) for name in manifest.rollout_ids]
        learner.update(batch)
    return learner.state
