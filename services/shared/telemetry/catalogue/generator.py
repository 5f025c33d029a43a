"""What the generator measures."""

from __future__ import annotations

from services.shared.telemetry.catalogue.spec import FAST_SECONDS, MetricSpec

_ROOMS = ("generator",)

SPECS = (
    MetricSpec(
        name="thumbloop_generator_responses_total",
        kind="counter",
        unit="responses",
        labels=("purpose", "finish_reason"),
        rooms=_ROOMS,
        help="Responses ended, by purpose and reason.",
        operator="Reason `error` above 0: the engine failed; its log says why. `deadline` rising: too much load.",
    ),
    MetricSpec(
        name="thumbloop_generator_tokens_total",
        kind="counter",
        unit="tokens",
        labels=("purpose",),
        rooms=_ROOMS,
        help="Response tokens drawn; its rate is tokens per second.",
        operator="Falls while responses wait: the engine slows down; look at the machine.",
    ),
    MetricSpec(
        name="thumbloop_generator_running_responses",
        kind="gauge",
        unit="responses",
        rooms=_ROOMS,
        help="Responses being drawn now.",
        operator="At `generator.max_running` for long: the replica is full; add replicas.",
    ),
    MetricSpec(
        name="thumbloop_generator_waiting_responses",
        kind="gauge",
        unit="responses",
        rooms=_ROOMS,
        help="Responses that wait for a slot.",
        operator="Above 0 for long: add replicas, or clients will be told to come again.",
    ),
    MetricSpec(
        name="thumbloop_generator_queued_rollouts",
        kind="gauge",
        unit="rollouts",
        rooms=_ROOMS,
        help="Rollouts on disk that wait for Kafka.",
        operator="Above 0 for long: Kafka is away. It drains by itself; check the volume's free space meanwhile.",
    ),
    MetricSpec(
        name="thumbloop_generator_kept_rollouts",
        kind="gauge",
        unit="rollouts",
        rooms=_ROOMS,
        help="Embedded broker: rollouts on disk until the learner's store has them and their scores.",
        operator="Grows: the learner or `reward` is away. Past `generator.rollout_queue_max` the oldest are let go.",
    ),
    MetricSpec(
        name="thumbloop_generator_refused_rollouts",
        kind="gauge",
        unit="rollouts",
        rooms=_ROOMS,
        help="Rollouts that Kafka will never take; the newest 1,000 stay on this replica's disk.",
        operator="Above 0: the log line `rollout_refused` says why; mend that (often the topic's `max.message.bytes`). "
        "They train nothing and lie in `rollouts.db` with a `refused_reason`; with the generator stopped, they can be "
        "deleted there.",
    ),
    MetricSpec(
        name="thumbloop_generator_rollouts_resent_total",
        kind="counter",
        unit="rollouts",
        labels=("lacks",),
        rooms=_ROOMS,
        help="Embedded broker: rollouts sent again, since the store lacked the rollout, or its score.",
        operator="A burst after a kill of the broker repairs its lost tail. Without one: see the dead letters.",
    ),
    MetricSpec(
        name="thumbloop_generator_pause_seconds",
        kind="histogram",
        unit="seconds",
        rooms=_ROOMS,
        help="How long decoding stood still for a flip.",
        operator="Above a second: answers stutter at releases; use adapters instead of full weights.",
        buckets=FAST_SECONDS,
    ),
)
