"""What the gateway measures."""

from __future__ import annotations

from services.shared.telemetry.catalogue.spec import FAST_SECONDS, SLOW_SECONDS, MetricSpec

_ROOMS = ("gateway",)

SPECS = (
    MetricSpec(
        name="thumbloop_gateway_requests_total",
        kind="counter",
        unit="requests",
        labels=("route", "status"),
        rooms=_ROOMS,
        help="HTTP requests ended, by route and status code.",
        operator="A rise of 5xx: look at the generator's health first, then at the gateway's log. 429: add generators.",
    ),
    MetricSpec(
        name="thumbloop_gateway_request_seconds",
        kind="histogram",
        unit="seconds",
        labels=("route",),
        rooms=_ROOMS,
        help="Duration of HTTP requests; of a stream, to its last byte.",
        operator="Slower with the same traffic: compare with the generator's waiting responses.",
        buckets=SLOW_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_gateway_first_token_seconds",
        kind="histogram",
        unit="seconds",
        rooms=_ROOMS,
        help="From a chat request's arrival to the first text sent.",
        operator="What users feel. Slower: add generators, or lower their limit of waiting responses.",
        buckets=FAST_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_gateway_running_requests",
        kind="gauge",
        unit="requests",
        rooms=_ROOMS,
        help="Chat requests being answered now.",
        operator="Near the limit `gateway.max_running`: requests are about to get 429; add replicas.",
    ),
    MetricSpec(
        name="thumbloop_gateway_feedback_total",
        kind="counter",
        unit="feedback",
        labels=("kind", "outcome"),
        rooms=_ROOMS,
        help="Feedback received, by kind and outcome: accepted (Kafka has it), spooled (this disk has it), repeated "
        "(known: nothing was written), limited (429), denied (401, 403), rejected (400, 409), unavailable (503).",
        operator="Unavailable above 0: feedback is refused; Kafka is away and the spool is full or off. Denied rising: "
        "clients hold old or wrong tokens, or somebody forges them. Limited rising: a rater floods, or the settings "
        "`access.rater_*` are too tight.",
    ),
    MetricSpec(
        name="thumbloop_gateway_feedback_states_total",
        kind="counter",
        unit="answers",
        labels=("state",),
        rooms=_ROOMS,
        help="States told by GET /v1/feedback/{id}; `unknown` (404) and `refused` (other errors) among them.",
        operator="Orphaned or rejected a large share: feedback is lost to training; look at the generators' rollout "
        "queues and at the dead letters. Accepted or spooled for long: ingest stands, or Kafka is away.",
    ),
    MetricSpec(
        name="thumbloop_gateway_feedback_seconds",
        kind="histogram",
        unit="seconds",
        rooms=_ROOMS,
        help="From a feedback's arrival to its durable acknowledgement.",
        operator="Slow: Kafka is slow to replicate; look at its under-replicated partitions.",
        buckets=FAST_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_items",
        kind="gauge",
        unit="feedback",
        rooms=_ROOMS,
        help="Acknowledged feedback on this gateway's disk that the log (embedded broker: the learner's store) lacks.",
        operator="Grows: Kafka is away (embedded broker: ingest stands). It drains by itself; before it reaches "
        "`gateway.spool.max_items`, mend Kafka. Never delete the volume of a gateway where this is above 0. Stays "
        "above 0 while Kafka is there: the log line `spool_item_refused` names what Kafka will never take; it lies in "
        "`feedback.db` with a `refused_reason` and, with the gateway stopped, can be deleted there.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_bytes",
        kind="gauge",
        unit="bytes",
        rooms=_ROOMS,
        help="Size of these items.",
        operator="Near `gateway.spool.max_bytes`: feedback is about to get 503; mend Kafka, or give it more room.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_oldest_seconds",
        kind="gauge",
        unit="seconds",
        rooms=_ROOMS,
        help="Age of the oldest of them that Kafka may take; 0: there is none.",
        operator="Grows while Kafka is back: the log line `spool_not_drained` says why, or `log_away` names the "
        "partition that takes nothing (too few in-sync replicas?); those of the others drain meanwhile.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_drained_total",
        kind="counter",
        unit="feedback",
        rooms=_ROOMS,
        help="Items that left the disk because the log (embedded broker: the learner's store) has them.",
        operator="Stands still while items lie there: Kafka, or with the embedded broker the learner, is away.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_resent_total",
        kind="counter",
        unit="feedback",
        rooms=_ROOMS,
        help="Embedded broker: items sent again, since the learner's store lacked them.",
        operator="A burst after the broker was killed is the repair of its lost tail. Without a kill: ingest is slow.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_in_vain_items",
        kind="gauge",
        unit="feedback",
        rooms=_ROOMS,
        help="Embedded broker: items on this gateway's disk that were sent five times, that the learner's store lacks "
        "all the same, and that this process sends no more.",
        operator="Above 0: the learner cannot read them, or ingest stands. The log line `feedback_sent_in_vain` names "
        "them; `thumbloop dead-letters list` says why: written under another `deployment.name`, or by a gateway that "
        "is newer than the learner. Mend that, then start the gateway anew: it sends each again. They lie on disk "
        "until the store has them.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_full_total",
        kind="counter",
        unit="feedback",
        rooms=_ROOMS,
        help="Feedback refused (503) because the spool was full.",
        operator="Above 0: users' feedback is refused now. Mend Kafka; meanwhile raise `gateway.spool.max_items`.",
    ),
)
