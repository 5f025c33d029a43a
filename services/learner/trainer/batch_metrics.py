"""What can be said of a batch, and of the time that it took, whatever the algorithm: part of a release's metrics."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from services.learner.trainer.learners import ScoredExperience
from services.learner.trainer.status import Phase

_PHASE_METRICS = {
    "seconds_wait": (Phase.WAITING, Phase.PAUSED),
    "seconds_train": (Phase.TRAINING_REWARD_MODEL, Phase.RESCORING, Phase.UPDATING_POLICY, Phase.RESTORING),
    "seconds_gate": (Phase.MEASURING, Phase.GATING),
    "seconds_stage": (Phase.STAGING,),
}


def batch_metrics(batch: Sequence[ScoredExperience]) -> dict[str, float]:
    """Rewards in thumb units; shares from 0 to 1."""
    rewards = [item.reward for item in batch]
    thumbs = [item.experience.thumb for item in batch if item.experience.thumb is not None]
    sums: Counter[str] = Counter()
    for item in batch:
        sums.update(dict(item.terms))
    metrics = {
        "experiences": float(len(batch)),
        "reward_mean": statistics.fmean(rewards),
        "reward_sd": statistics.pstdev(rewards),
        "rated_share": len(thumbs) / len(batch),
        "staleness_mean": statistics.fmean(item.experience.staleness for item in batch),
        "response_tokens_mean": statistics.fmean(len(item.experience.rollout.response_token_ids) for item in batch),
        **{f"reward_term_{name}": value / len(batch) for name, value in sums.items()},
    }
    if thumbs:
        metrics["thumbs_up_rate"] = statistics.fmean(thumbs)
    return metrics


def phase_seconds(spent: Mapping[Phase, float]) -> dict[str, float]:
    """Seconds by what they went into."""
    return {name: sum(spent.get(phase, 0.0) for phase in phases) for name, phases in _PHASE_METRICS.items()}
