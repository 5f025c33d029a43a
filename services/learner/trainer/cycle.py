"""The order of things: reward model first, then the policy, each from what is live now.

`turn` is called again and again by the trainer's thread. It either does one piece of work, or says what is lacking.
"""

from __future__ import annotations

from collections.abc import Callable

from services.learner.ports import ReleaseRow
from services.learner.trainer.pacing import Pacing
from services.learner.trainer.policy_step import PolicyStep
from services.learner.trainer.reward_step import RewardStep
from services.learner.trainer.status import Phase, StatusBoard


class Cycle:
    """Decides what to do next."""

    def __init__(
        self,
        reward: RewardStep,
        policy: PolicyStep,
        no_skill: Callable[[], str],
        pacing: Pacing,
        board: StatusBoard,
        *,
        idle_s: float = 0.5,
    ) -> None:
        """`no_skill`: why the reward model may not be optimised against yet. `idle_s`: pause between two looks."""
        self._reward = reward
        self._policy = policy
        self._no_skill = no_skill
        self._pacing = pacing
        self._board = board
        self._idle_s = idle_s
        self._reward_went_last = False

    def turn(self) -> bool:
        """One look. True: something was done, so another look is worth while at once. Raises Stopped."""
        self._pacing.safe_point()
        self._policy.drop_forgotten()
        if self._pacing.paused:
            return self._wait("training is paused", Phase.PAUSED)
        reward_model, policy = self._reward.sync(), self._policy.sync()
        if reward_model is None or policy is None:
            return self._wait("no release is live yet", Phase.WAITING)
        lacking, no_skill = self._policy.lacking(policy), self._no_skill()
        # Thumbs may come faster than they are learned from: the policy has its turn all the same.
        turn_of_reward = lacking or no_skill or not self._reward_went_last
        if turn_of_reward and self._reward.due(before_update=not (lacking or no_skill)):
            self._reward_went_last = True
            return self._reward.run(reward_model)
        self._reward_went_last = False
        return self._policy_turn(policy, reward_model, lacking, no_skill)

    def _policy_turn(self, policy: ReleaseRow, reward_model: ReleaseRow, lacking: str, no_skill: str) -> bool:
        if no_skill:
            return self._wait(f"the reward model has not proved skill: {no_skill}", Phase.WAITING)
        if lacking:
            return self._wait(lacking, Phase.WAITING)
        self._board.tell(waiting_reason="")
        if self._policy.run(policy, reward_model.version):
            return True
        return self._wait("the last update made no release", Phase.WAITING)

    def _wait(self, reason: str, phase: Phase) -> bool:
        problems = [problem for problem in (self._reward.problem, self._policy.problem) if problem]
        self._board.tell(waiting_reason="; ".join([reason, *problems]))
        self._board.enter(phase)
        self._pacing.sleep(self._idle_s)
        return False
