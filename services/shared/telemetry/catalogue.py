"""Every metric of every room: name, unit, meaning, and what an operator does when it moves.

Code, alerts and dashboards take their names from here. `python -m services.shared.telemetry.catalogue` prints the page
`docs/metrics.md`, which a test holds up to date.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One metric. `rooms` expose it; `unit` is what its number counts; `buckets` are a histogram's upper bounds."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...] = ()
    rooms: tuple[str, ...]
    help: str
    operator: str
    buckets: tuple[float, ...] = ()


FAST_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SLOW_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
SMALL_COUNTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)

GATEWAY = ("gateway",)
GENERATOR = ("generator",)
REWARD = ("reward",)
LEARNER = ("learner",)
FOLLOWERS = ("generator", "reward")
ORDERED = ("gateway", "generator", "reward", "learner")

_SPECS = (
    MetricSpec(
        name="thumbloop_gateway_requests_total",
        kind="counter",
        unit="requests",
        labels=("route", "status"),
        rooms=GATEWAY,
        help="HTTP requests ended, by route and status code.",
        operator="A rise of 5xx: look at the generator's health first, then at the gateway's log. 429: add generators.",
    ),
    MetricSpec(
        name="thumbloop_gateway_request_seconds",
        kind="histogram",
        unit="seconds",
        labels=("route",),
        rooms=GATEWAY,
        help="Duration of HTTP requests; of a stream, to its last byte.",
        operator="Slower with the same traffic: compare with the generator's waiting responses.",
        buckets=SLOW_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_gateway_first_token_seconds",
        kind="histogram",
        unit="seconds",
        rooms=GATEWAY,
        help="From a chat request's arrival to the first text sent.",
        operator="What users feel. Slower: add generators, or lower their limit of waiting responses.",
        buckets=FAST_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_gateway_running_requests",
        kind="gauge",
        unit="requests",
        rooms=GATEWAY,
        help="Chat requests being answered now.",
        operator="Near the limit `gateway.max_running`: requests are about to get 429; add replicas.",
    ),
    MetricSpec(
        name="thumbloop_gateway_feedback_total",
        kind="counter",
        unit="feedback",
        labels=("kind", "outcome"),
        rooms=GATEWAY,
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
        rooms=GATEWAY,
        help="States told by GET /v1/feedback/{id}; `unknown` (404) and `refused` (other errors) among them.",
        operator="Orphaned or rejected a large share: feedback is lost to training; look at the generators' rollout "
        "queues and at the dead letters. Accepted or spooled for long: ingest stands, or Kafka is away.",
    ),
    MetricSpec(
        name="thumbloop_gateway_feedback_seconds",
        kind="histogram",
        unit="seconds",
        rooms=GATEWAY,
        help="From a feedback's arrival to its durable acknowledgement.",
        operator="Slow: Kafka is slow to replicate; look at its under-replicated partitions.",
        buckets=FAST_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_items",
        kind="gauge",
        unit="feedback",
        rooms=GATEWAY,
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
        rooms=GATEWAY,
        help="Size of these items.",
        operator="Near `gateway.spool.max_bytes`: feedback is about to get 503; mend Kafka, or give it more room.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_oldest_seconds",
        kind="gauge",
        unit="seconds",
        rooms=GATEWAY,
        help="Age of the oldest of them that Kafka may take; 0: there is none.",
        operator="Grows while Kafka is back: the log line `spool_not_drained` says why.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_drained_total",
        kind="counter",
        unit="feedback",
        rooms=GATEWAY,
        help="Items that left the disk because the log (embedded broker: the learner's store) has them.",
        operator="Stands still while items lie there: Kafka, or with the embedded broker the learner, is away.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_resent_total",
        kind="counter",
        unit="feedback",
        rooms=GATEWAY,
        help="Embedded broker: items sent again, since the learner's store lacked them.",
        operator="A burst after the broker was killed is the repair of its lost tail. Without a kill: ingest is slow.",
    ),
    MetricSpec(
        name="thumbloop_gateway_spool_full_total",
        kind="counter",
        unit="feedback",
        rooms=GATEWAY,
        help="Feedback refused (503) because the spool was full.",
        operator="Above 0: users' feedback is refused now. Mend Kafka; meanwhile raise `gateway.spool.max_items`.",
    ),
    MetricSpec(
        name="thumbloop_generator_responses_total",
        kind="counter",
        unit="responses",
        labels=("purpose", "finish_reason"),
        rooms=GENERATOR,
        help="Responses ended, by purpose and reason.",
        operator="Reason `error` above 0: the engine failed; its log says why. `deadline` rising: too much load.",
    ),
    MetricSpec(
        name="thumbloop_generator_tokens_total",
        kind="counter",
        unit="tokens",
        labels=("purpose",),
        rooms=GENERATOR,
        help="Response tokens drawn; its rate is tokens per second.",
        operator="Falls while responses wait: the engine slows down; look at the machine.",
    ),
    MetricSpec(
        name="thumbloop_generator_running_responses",
        kind="gauge",
        unit="responses",
        rooms=GENERATOR,
        help="Responses being drawn now.",
        operator="At `generator.max_running` for long: the replica is full; add replicas.",
    ),
    MetricSpec(
        name="thumbloop_generator_waiting_responses",
        kind="gauge",
        unit="responses",
        rooms=GENERATOR,
        help="Responses that wait for a slot.",
        operator="Above 0 for long: add replicas, or clients will be told to come again.",
    ),
    MetricSpec(
        name="thumbloop_generator_queued_rollouts",
        kind="gauge",
        unit="rollouts",
        rooms=GENERATOR,
        help="Rollouts on disk that wait for Kafka.",
        operator="Above 0 for long: Kafka is away. It drains by itself; check the volume's free space meanwhile.",
    ),
    MetricSpec(
        name="thumbloop_generator_kept_rollouts",
        kind="gauge",
        unit="rollouts",
        rooms=GENERATOR,
        help="Embedded broker: rollouts on disk until the learner's store has them and their scores.",
        operator="Grows: the learner or `reward` is away. Past `generator.rollout_queue_max` the oldest are let go.",
    ),
    MetricSpec(
        name="thumbloop_generator_rollouts_resent_total",
        kind="counter",
        unit="rollouts",
        labels=("lacks",),
        rooms=GENERATOR,
        help="Embedded broker: rollouts sent again, since the store lacked the rollout, or its score.",
        operator="A burst after a kill of the broker repairs its lost tail. Without one: see the dead letters.",
    ),
    MetricSpec(
        name="thumbloop_release_info",
        kind="gauge",
        unit="1",
        labels=("kind", "version"),
        rooms=FOLLOWERS,
        help="1 for the version that the replica serves.",
        operator="More than one version of a kind over the fleet for minutes: see the stage failures of those behind.",
    ),
    MetricSpec(
        name="thumbloop_release_flips_total",
        kind="counter",
        unit="flips",
        labels=("kind",),
        rooms=FOLLOWERS,
        help="Versions taken live.",
        operator="Does not move while the learner releases: the replica is stuck; see the stage failures.",
    ),
    MetricSpec(
        name="thumbloop_release_stage_seconds",
        kind="histogram",
        unit="seconds",
        labels=("kind",),
        rooms=FOLLOWERS,
        help="From the start of a download to the flip, serving meanwhile.",
        operator="Slow: the checkpoint store or the network is slow; it adds to thumb-to-token.",
        buckets=SLOW_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_release_stage_failures_total",
        kind="counter",
        unit="attempts",
        labels=("kind", "reason"),
        rooms=FOLLOWERS,
        help="Attempts to take a version live that failed; the old version went on serving.",
        operator="CORRUPT: put the release back from a copy or roll back. UNAVAILABLE: the checkpoint store is away.",
    ),
    MetricSpec(
        name="thumbloop_release_skipped_events_total",
        kind="counter",
        unit="events",
        labels=("reason",),
        rooms=ORDERED,
        help="Announcements and orders that this replica could not use.",
        operator="Above 0: a newer learner speaks to an older replica, or a foreign producer writes; see the log.",
    ),
    MetricSpec(
        name="thumbloop_generator_pause_seconds",
        kind="histogram",
        unit="seconds",
        rooms=GENERATOR,
        help="How long decoding stood still for a flip.",
        operator="Above a second: answers stutter at releases; use adapters instead of full weights.",
        buckets=FAST_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_reward_scored_total",
        kind="counter",
        unit="rollouts",
        labels=("source",),
        rooms=REWARD,
        help="Rollouts scored; source: event or call.",
        operator="Stops while rollouts are made: training starves; look at the room's log.",
    ),
    MetricSpec(
        name="thumbloop_reward_batch_seconds",
        kind="histogram",
        unit="seconds",
        rooms=REWARD,
        help="One batch's pass through base model and heads.",
        operator="Slow: lower `reward.max_batch`, or add replicas.",
        buckets=SLOW_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_reward_score",
        kind="histogram",
        unit="probability",
        rooms=REWARD,
        help="Predicted probability of a thumb up.",
        operator="All mass at one end: the reward model has collapsed or is hacked; compare with real thumbs.",
        buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    ),
    MetricSpec(
        name="thumbloop_ingest_lag_events",
        kind="gauge",
        unit="events",
        labels=("topic", "partition"),
        rooms=LEARNER,
        help="Events in the log that are not yet in the store, by partition; shown by the process that reads it.",
        operator="Grows for minutes: the store is slow or ingest stands; feedback is safe in Kafka meanwhile.",
    ),
    MetricSpec(
        name="thumbloop_ingest_events_total",
        kind="counter",
        unit="events",
        labels=("topic", "outcome"),
        rooms=LEARNER,
        help="Events read, by outcome: stored (again or for the first time), dead_letter, past_retention (left out).",
        operator="Stands still while the lag grows: ingest stopped; its log says why.",
    ),
    MetricSpec(
        name="thumbloop_ingest_dead_letters_total",
        kind="counter",
        unit="events",
        labels=("topic", "reason"),
        rooms=LEARNER,
        help="Events that could not be used and went to the dead-letter topic.",
        operator="Above 0: read them by `thumbloop dead-letters list`; usually a producer of another version.",
    ),
    MetricSpec(
        name="thumbloop_feedback_state",
        kind="gauge",
        unit="feedback",
        labels=("state",),
        rooms=LEARNER,
        help="The newest 10,000 feedback in the store by state: waiting, joined, late, superseded, retracted, "
        "orphaned, quarantined, rejected. One ingest process shows them.",
        operator="Orphaned rising: generators die before their rollouts are in Kafka. Late: raters come after "
        "`learner.join_window_s`. Rejected: see the reasons by `GET /v1/feedback/{id}`.",
    ),
    MetricSpec(
        name="thumbloop_feedback_waiting",
        kind="gauge",
        unit="feedback",
        rooms=LEARNER,
        help="Feedback in the store that waits for its rollout (dangling), and may still get it.",
        operator="Grows: rollouts do not arrive; see the generators' queued rollouts and the lag of `rollouts`.",
    ),
    MetricSpec(
        name="thumbloop_feedback_oldest_waiting_seconds",
        kind="gauge",
        unit="seconds",
        rooms=LEARNER,
        help="Age of the oldest feedback that waits for its rollout; 0: none waits.",
        operator="Near `learner.orphan_after_s`: feedback is about to be orphaned; find the rollouts first.",
    ),
    MetricSpec(
        name="thumbloop_trainer_phase",
        kind="gauge",
        unit="1",
        labels=("phase",),
        rooms=LEARNER,
        help="1 for what the trainer is doing now.",
        operator="Waiting for long while feedback arrives: `thumbloop policies list` and the status say for what.",
    ),
    MetricSpec(
        name="thumbloop_trainer_phase_seconds",
        kind="histogram",
        unit="seconds",
        labels=("phase",),
        rooms=LEARNER,
        help="Duration of the trainer's phases.",
        operator="Shows which phase thumb-to-token is spent in.",
        buckets=SLOW_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_trainer_updates_total",
        kind="counter",
        unit="updates",
        labels=("kind", "outcome"),
        rooms=LEARNER,
        help="Updates by kind (policy, reward_model) and outcome: submitted, skipped, failed.",
        operator="Skipped again and again: the reward no longer varies; all is learned, or the model collapsed.",
    ),
    MetricSpec(
        name="thumbloop_trainer_reward",
        kind="gauge",
        unit="thumb units",
        labels=("term",),
        rooms=LEARNER,
        help="Mean of each reward term in the last batch; `total` is their sum. -1 is a thumb down, 1 a thumb up.",
        operator="`total` rises while users' thumbs do not: reward hacking; roll back, raise the KL coefficient.",
    ),
    MetricSpec(
        name="thumbloop_trainer_kl_nats",
        kind="gauge",
        unit="nats per answer",
        rooms=LEARNER,
        help="KL of the policy to the reference policy in the last batch.",
        operator="Runs away from `learner.ppo.kl_target_nats`: lower the learning rate or raise the KL coefficient.",
    ),
    MetricSpec(
        name="thumbloop_trainer_entropy_nats",
        kind="gauge",
        unit="nats per token",
        rooms=LEARNER,
        help="Entropy of the policy in the last batch.",
        operator="Falls towards 0: the policy collapses; roll back.",
    ),
    MetricSpec(
        name="thumbloop_trainer_staleness_updates",
        kind="histogram",
        unit="updates",
        rooms=LEARNER,
        help="Updates between a trained rollout's oldest version and the learner's.",
        operator="Near `learner.max_staleness`: replicas take releases slowly, or rollouts wait long for scores.",
        buckets=SMALL_COUNTS,
    ),
    MetricSpec(
        name="thumbloop_trainer_experiences_total",
        kind="counter",
        unit="experiences",
        labels=("outcome",),
        rooms=LEARNER,
        help="Claimed experiences by outcome: used, stale, refused.",
        operator="Stale a large share: feedback is wasted; lower the batch size or the unrated wait.",
    ),
    MetricSpec(
        name="thumbloop_reward_model_auroc",
        kind="gauge",
        unit="probability",
        labels=("bound",),
        rooms=LEARNER,
        help="Prequential AUROC of the reward model over the last thumbs; bound: mean, low95.",
        operator="low95 under `learner.reward_min_auroc_low95`: the policy is not trained until it recovers.",
    ),
    MetricSpec(
        name="thumbloop_releases_published_total",
        kind="counter",
        unit="releases",
        labels=("kind", "reason"),
        rooms=LEARNER,
        help="Announcements of another version than before, by kind and reason: release, rollback.",
        operator="Rollbacks without an operator's hand: the canary reverted; read the gate's lines of that version.",
    ),
    MetricSpec(
        name="thumbloop_releases_refused_total",
        kind="counter",
        unit="releases",
        labels=("kind", "check"),
        rooms=LEARNER,
        help="Candidates that the gate refused, by the first check that failed.",
        operator="Several in a row: training goes wrong; see the reward terms and the KL.",
    ),
    MetricSpec(
        name="thumbloop_thumb_to_token_seconds",
        kind="gauge",
        unit="seconds",
        labels=("stage", "quantile"),
        rooms=LEARNER,
        help="From a thumb's acknowledgement to the first token of a policy that learned from it. Stage: to_rm, "
        "to_first, to_live; quantile: 0.5, 0.99. 1e9: not yet.",
        operator="The headline. Slower: the trainer's phase seconds and the stage seconds say where.",
    ),
    MetricSpec(
        name="thumbloop_thumb_to_token_censored_share",
        kind="gauge",
        unit="share",
        rooms=LEARNER,
        help="Thumbs that no served policy has learned from (yet).",
        operator="High in steady traffic: candidates are refused or feedback comes too late.",
    ),
)

CATALOGUE: dict[str, MetricSpec] = {spec.name: spec for spec in _SPECS}

_HEAD = """# Metrics

Every room serves these on its metrics port (the gateway on its control port) at `/metrics`, in Prometheus' format.
This page is made from the catalogue: `python -m services.shared.telemetry.catalogue > docs/metrics.md`.
"""


def render_page(specs: Iterable[MetricSpec] = CATALOGUE.values()) -> str:
    """The page in Markdown: a table for each set of rooms, in the catalogue's order."""
    groups: dict[tuple[str, ...], list[MetricSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.rooms, []).append(spec)
    parts = [_HEAD]
    for rooms, members in groups.items():
        rows = [
            f"| `{spec.name}` | {spec.kind} | {spec.unit} | {', '.join(spec.labels) or '–'} | {spec.help} | "
            f"{spec.operator} |"
            for spec in members
        ]
        title = " and ".join(rooms).capitalize()
        parts.append(
            "\n".join(
                [
                    f"## {title}\n",
                    "| metric | kind | unit | labels | what it says | what to do when it moves |",
                    "|---|---|---|---|---|---|",
                    *rows,
                    "",
                ]
            )
        )
    return "\n".join(parts)


if __name__ == "__main__":
    print(render_page(), end="")
