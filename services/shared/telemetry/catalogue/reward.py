"""What reward measures."""

from __future__ import annotations

from services.shared.telemetry.catalogue.spec import SLOW_SECONDS, MetricSpec

_ROOMS = ("reward",)

SPECS = (
    MetricSpec(
        name="thumbloop_reward_scored_total",
        kind="counter",
        unit="rollouts",
        labels=("source",),
        rooms=_ROOMS,
        help="Rollouts scored; source: event or call.",
        operator="Stops while rollouts are made: training starves; look at the room's log.",
    ),
    MetricSpec(
        name="thumbloop_reward_batch_seconds",
        kind="histogram",
        unit="seconds",
        rooms=_ROOMS,
        help="One batch's pass through base model and heads.",
        operator="Slow: lower `reward.max_batch`, or add replicas.",
        buckets=SLOW_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_reward_score",
        kind="histogram",
        unit="probability",
        rooms=_ROOMS,
        help="Predicted probability of a thumb up.",
        operator="All mass at one end: the reward model has collapsed or is hacked; compare with real thumbs.",
        buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    ),
)
