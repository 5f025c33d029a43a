"""From features to rewards in thumb units.

Shapes: `B` rollouts, `H` heads, `F` features. The reward of an answer is `r = 2p - 1 - k * spread`: p is the mean, over
the heads that never saw this rollout, of the calibrated probability of a thumb up; *spread* is their standard
deviation, so that an answer on which the heads disagree is worth less (the conservative ensemble of Coste et al.,
arXiv 2310.02743). r lies between -1 - k/2 and 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.shared.reward_heads.fold_design import left_out_HB
from services.shared.reward_heads.heads import FloatArray, RewardHeads

DEFAULT_SPREAD_PENALTY = 0.5


@dataclass(frozen=True, kw_only=True)
class RewardScores:
    """What the reward model says of B rollouts."""

    mean_B: FloatArray
    """Calibrated probability of a thumb up, 0 to 1."""
    spread_B: FloatArray
    """Standard deviation of that probability among the heads that may judge the rollout."""
    thumb_B: FloatArray
    """Reward term `thumb`: 2 * mean - 1."""
    doubt_B: FloatArray
    """Reward term `doubt`: minus the spread penalty times the spread."""

    @property
    def reward_B(self) -> FloatArray:
        """The sum of all terms."""
        return self.thumb_B + self.doubt_B

    def terms(self, row: int) -> Mapping[str, float]:
        """The reward terms of one rollout, by the names under which they are logged."""
        return {"thumb": float(self.thumb_B[row]), "doubt": float(self.doubt_B[row])}


def head_logits_HB(heads: RewardHeads, features_BF: NDArray[np.floating]) -> FloatArray:
    """Every head's uncalibrated logit for every rollout, whether or not the head may judge it."""
    if features_BF.ndim != 2 or features_BF.shape[1] != heads.features:
        raise ValueError(f"features must have shape (rollouts, {heads.features}), got {features_BF.shape}")
    standard_BF = (features_BF.astype(np.float32) - heads.mean_F) / heads.scale_F
    logits_HB: FloatArray = heads.weights_HF @ standard_BF.T + heads.bias_H[:, None]
    return logits_HB


def score(
    heads: RewardHeads,
    features_BF: NDArray[np.floating],
    rollout_ids: Sequence[str],
    *,
    spread_penalty: float = DEFAULT_SPREAD_PENALTY,
) -> RewardScores:
    """Score each rollout, rated or not, by the heads that leave it out of their training.

    An empty rollout id stands for a text that is new to all heads: all of them judge it. `features_BF` may be fp16, as
    events carry them. Raises ValueError where shapes do not fit or a feature is not
    finite: a reward must never be made up.
    """
    if len(rollout_ids) != len(features_BF):
        raise ValueError(f"{len(features_BF)} rows of features but {len(rollout_ids)} rollout ids")
    if not np.all(np.isfinite(features_BF)):
        raise ValueError("features hold NaN or infinity: make them again from the rollout's tokens")
    may_judge_HB = left_out_HB(rollout_ids).astype(np.float32)
    may_judge_HB[:, [not rollout_id for rollout_id in rollout_ids]] = 1.0
    # The logistic function by tanh, which cannot overflow.
    probability_HB = 0.5 + 0.5 * np.tanh(0.5 * (heads.slope * head_logits_HB(heads, features_BF) + heads.offset))
    judges_B = may_judge_HB.sum(axis=0)
    mean_B = (may_judge_HB * probability_HB).sum(axis=0) / judges_B
    variance_B = (may_judge_HB * (probability_HB - mean_B) ** 2).sum(axis=0) / judges_B
    spread_B = np.sqrt(variance_B)
    return RewardScores(
        mean_B=mean_B.astype(np.float32),
        spread_B=spread_B.astype(np.float32),
        thumb_B=(2 * mean_B - 1).astype(np.float32),
        doubt_B=(-spread_penalty * spread_B).astype(np.float32),
    )
