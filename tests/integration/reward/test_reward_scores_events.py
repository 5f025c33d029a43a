"""Every rollout is scored, though the room is killed in the middle.

Plan: release 0 is announced, 40 rollouts are sent, the room starts; when the first scores are there it gets kill -9, 40
more are sent, it starts again under the same member id; at the end it gets SIGTERM.
Pass: each of the 80 rollouts has a score (two are allowed) by the live version, with reference log-probs and features,
all scores of a rollout equal; the exit code after SIGTERM is 0.
"""

from __future__ import annotations

from services.shared.domain.rollout import Purpose
from tests.integration.reward.reward_process import RewardProcess, zero_heads
from tests.support.facts import make_rollout


def test_no_rollout_goes_unscored(reward: RewardProcess) -> None:
    version = reward.release(zero_heads())
    first = [make_rollout(f"a{number}") for number in range(40)]
    second = [make_rollout(f"b{number}", purpose=Purpose.GATE) for number in range(40)]
    reward.send(*first)
    reward.start()
    reward.scores({"a0"})
    reward.kill()
    reward.send(*second)
    reward.start()
    reward.wait_ready()
    scores = reward.scores({rollout.rollout_id for rollout in (*first, *second)})
    by_rollout: dict[str, set[tuple[object, ...]]] = {}
    for score in scores:
        assert score.reward_model_version == version
        assert len(score.reference_log_probs) == 4
        assert score.features
        assert score.mean == 0.5
        by_rollout.setdefault(score.rollout_id, set()).add((score.reference_log_probs, score.features, score.terms))
    assert len(by_rollout) == 80
    assert all(len(kinds) == 1 for kinds in by_rollout.values())
    assert reward.terminate() == 0
