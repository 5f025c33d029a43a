"""Rewards per token: the KL to the reference at every token, the answer's reward at its last.

Shapes: `R` response tokens of a batch, rollout after rollout; `B` rollouts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.learner.ppo.batch import TrainingRollout


@dataclass(frozen=True, kw_only=True)
class TokenRewards:
    """Rewards of a batch, their two sources apart."""

    kl_R: Tensor
    """log(policy / reference) of each sampled token, in nats: unbiased, may be negative."""
    terminal_R: Tensor
    """The answer's reward at its last token, 0 elsewhere, in thumb units."""
    total_R: Tensor
    """terminal - coefficient * kl."""
    kl_B: Tensor
    """KL of each answer: the sum over its tokens, in nats."""


def token_rewards(policy_logprobs_R: Tensor, rollouts: Sequence[TrainingRollout], coefficient: float) -> TokenRewards:
    """Rewards under a KL price of `coefficient` thumb units per nat."""
    lengths = [len(rollout.response_ids) for rollout in rollouts]
    reference_R = policy_logprobs_R.new_tensor([value for r in rollouts for value in r.reference_logprobs])
    kl_R = policy_logprobs_R - reference_R
    terminal_R = torch.zeros_like(kl_R)
    last_B = torch.tensor(lengths, device=kl_R.device).cumsum(dim=0) - 1
    terminal_R[last_B] = kl_R.new_tensor([rollout.reward for rollout in rollouts])
    return TokenRewards(
        kl_R=kl_R,
        terminal_R=terminal_R,
        total_R=terminal_R - coefficient * kl_R,
        kl_B=torch.stack([part.sum() for part in torch.split(kl_R, lengths)]),
    )


def mean_terms(rollouts: Sequence[TrainingRollout]) -> dict[str, float]:
    """Each reward term's mean over the batch, by name; a term that a rollout lacks counts as 0."""
    names = sorted({name for rollout in rollouts for name in rollout.reward_terms})
    return {name: sum(r.reward_terms.get(name, 0.0) for r in rollouts) / len(rollouts) for name in names}
