"""What an update is given: rollouts with everything that PPO needs, all scored by one reward-model version."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.learner.model.packing import TokenSequence


@dataclass(frozen=True, kw_only=True)
class TrainingRollout:
    """One answer, ready to be learned from.

    All log-probs are of the response tokens under logits divided by `temperature`. Raises ValueError where lengths do
    not agree or a number is not finite.
    """

    rollout_id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    temperature: float
    behaviour_logprobs: tuple[float, ...]
    """Of the policy version that sampled each token, by the generator."""
    reference_logprobs: tuple[float, ...]
    """Of the reference policy."""
    reward_terms: Mapping[str, float] = field(default_factory=dict)
    """Terms of the reward at the end of the answer, by name, in thumb units. Their sum is the reward."""

    def __post_init__(self) -> None:
        tokens = len(self.response_ids)
        if len(self.behaviour_logprobs) != tokens or len(self.reference_logprobs) != tokens:
            raise ValueError(
                f"rollout {self.rollout_id}: {tokens} response tokens but {len(self.behaviour_logprobs)} behaviour "
                f"and {len(self.reference_logprobs)} reference log-probs"
            )
        numbers = (*self.behaviour_logprobs, *self.reference_logprobs, *self.reward_terms.values())
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"rollout {self.rollout_id}: log-probs and rewards must be finite")

    @property
    def reward(self) -> float:
        """The terminal reward, in thumb units."""
        return sum(self.reward_terms.values())

    @property
    def sequence(self) -> TokenSequence:
        """The rollout as the model takes it."""
        return TokenSequence(prompt_ids=self.prompt_ids, response_ids=self.response_ids, temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class PpoBatch:
    """The rollouts of one update."""

    rollouts: tuple[TrainingRollout, ...]

    def __post_init__(self) -> None:
        if not self.rollouts:
            raise ValueError("an update needs at least one rollout")
        if len({rollout.rollout_id for rollout in self.rollouts}) != len(self.rollouts):
            raise ValueError("a rollout occurs twice in the batch: each may be learned from only once")
