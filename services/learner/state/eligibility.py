"""Which rollouts PPO may take at all.

PPO's ratio needs the probability of each token under plain sampling, so rollouts drawn with top-p, top-k or an
extreme temperature are left out; they still train the reward model. Fit depends on the rollout alone and is decided
once; whether it is fresh depends on the learner's version and is asked at the claim.
"""

from __future__ import annotations

from services.shared.domain.rollout import FinishReason, Purpose, Rollout

MIN_TEMPERATURE = 0.5
MAX_TEMPERATURE = 1.2
_FLOAT32_SLACK = 1e-6
"""Events hold float32, in which 1.2 is a little more than 1.2."""


def is_eligible(rollout: Rollout) -> bool:
    """Whether PPO may train on the rollout, freshness apart."""
    return not ineligible_reason(rollout)


def ineligible_reason(rollout: Rollout) -> str:
    """Why PPO may not train on the rollout; "" where it may."""
    sampling = rollout.sampling
    tokens = len(rollout.response_token_ids)
    if rollout.purpose not in (Purpose.USER, Purpose.LEARNER):
        return f"purpose is {rollout.purpose}"
    if not MIN_TEMPERATURE - _FLOAT32_SLACK <= sampling.temperature <= MAX_TEMPERATURE + _FLOAT32_SLACK:
        return f"temperature {sampling.temperature} is not within {MIN_TEMPERATURE} to {MAX_TEMPERATURE}"
    if sampling.top_p != 1.0:
        return f"top-p is {sampling.top_p}"
    if sampling.top_k != 0:
        return f"top-k is {sampling.top_k}"
    if rollout.finish_reason is FinishReason.ERROR:
        return "the engine failed"
    if tokens == 0:
        return "there is no token" if rollout.overflow is None else "its tokens lie in the object store"
    if len(rollout.behaviour_log_probs) != tokens:
        return "log-probs are missing"
    return ""
