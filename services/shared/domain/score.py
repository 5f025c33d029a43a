"""A score: what one reward model says of one rollout."""

from __future__ import annotations

from dataclasses import dataclass

from services.shared.domain.events import EventMeta


@dataclass(frozen=True, kw_only=True)
class Score:
    """Unique for (rollout_id, reward_model_version).

    `mean` is the calibrated probability of a thumb up by the members that were not trained on the rollout, `spread`
    the standard deviation of those members' probabilities, `terms` the named addends in thumb units (-1 to 1).
    `reference_log_probs` run over the T response tokens, of the reference policy at `temperature`, in nats.
    `features` are little-endian fp16 in `feature_layout`; empty where a reward model needs none.
    """

    meta: EventMeta
    rollout_id: str
    reward_model_version: str
    mean: float
    spread: float
    terms: tuple[tuple[str, float], ...]
    reference_log_probs: tuple[float, ...]
    temperature: float
    base_model_digest: str
    features: bytes
    feature_layout: str
