"""Generalised advantage estimation (Schulman et al., arXiv 1506.02438), undiscounted, and whitening.

Shapes: `R` response tokens of a batch, rollout after rollout.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Advantages:
    """Advantages before whitening, and the returns that the critic learns."""

    advantages_R: Tensor
    returns_R: Tensor


def estimate(rewards_R: Tensor, values_R: Tensor, lengths: Sequence[int], gae_lambda: float) -> Advantages:
    """Advantage of each token: `sum_k lambda^k delta_{t+k}` with `delta_t = r_t + V_{t+1} - V_t`.

    The value after an answer's last token is 0: an answer is an episode, also where the token limit ended it. The
    returns are advantage plus value; with lambda 1 they are the plain sum of rewards from here on.
    """
    parts = []
    for rewards_T, values_T in zip(
        torch.split(rewards_R, list(lengths)), torch.split(values_R, list(lengths)), strict=True
    ):
        deltas_T = rewards_T - values_T
        deltas_T[:-1] += values_T[1:]
        advantages_T = torch.empty_like(deltas_T)
        running = deltas_T.new_zeros(())
        for index in range(len(deltas_T) - 1, -1, -1):
            running = deltas_T[index] + gae_lambda * running
            advantages_T[index] = running
        parts.append(advantages_T)
    advantages_R = torch.cat(parts)
    return Advantages(advantages_R=advantages_R, returns_R=advantages_R + values_R)


def whiten(advantages_R: Tensor, floor: float) -> tuple[Tensor, float]:
    """Subtract the mean over the whole update and divide by max(standard deviation, floor); return the divisor too.

    The floor, in thumb units, keeps a batch in which little differs from being blown up to full size. The divisor is
    what one whitened unit is worth in thumb units.
    """
    unit = max(float(advantages_R.std(correction=0)), floor)
    return (advantages_R - advantages_R.mean()) / unit, unit


def explained_variance(values_R: Tensor, returns_R: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, at most 0 for one worse than a constant."""
    variance = returns_R.var(correction=0)
    if float(variance) == 0.0:
        return 0.0
    return float(1 - (returns_R - values_R).var(correction=0) / variance)
