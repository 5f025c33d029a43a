"""What several rooms measure in the same way: releases and orders as they follow them."""

from __future__ import annotations

from services.shared.telemetry.catalogue.spec import SLOW_SECONDS, MetricSpec

_FOLLOWERS = ("generator", "reward")
_ORDERED = ("gateway", "generator", "reward", "learner")

SPECS = (
    MetricSpec(
        name="thumbloop_release_info",
        kind="gauge",
        unit="1",
        labels=("kind", "version"),
        rooms=_FOLLOWERS,
        help="1 for the version that the replica serves.",
        operator="More than one version of a kind over the fleet for minutes: see the stage failures of those behind.",
    ),
    MetricSpec(
        name="thumbloop_release_flips_total",
        kind="counter",
        unit="flips",
        labels=("kind",),
        rooms=_FOLLOWERS,
        help="Versions taken live.",
        operator="Does not move while the learner releases: the replica is stuck; see the stage failures.",
    ),
    MetricSpec(
        name="thumbloop_release_stage_seconds",
        kind="histogram",
        unit="seconds",
        labels=("kind",),
        rooms=_FOLLOWERS,
        help="From the start of a download to the flip, serving meanwhile.",
        operator="Slow: the checkpoint store or the network is slow; it adds to thumb-to-token.",
        buckets=SLOW_SECONDS,
    ),
    MetricSpec(
        name="thumbloop_release_stage_failures_total",
        kind="counter",
        unit="attempts",
        labels=("kind", "reason"),
        rooms=_FOLLOWERS,
        help="Attempts to take a version live that failed; the old version went on serving.",
        operator="CORRUPT: put the release back from a copy or roll back. UNAVAILABLE: the checkpoint store is away.",
    ),
    MetricSpec(
        name="thumbloop_release_skipped_events_total",
        kind="counter",
        unit="events",
        labels=("reason",),
        rooms=_ORDERED,
        help="Announcements and orders that this replica could not use.",
        operator="Above 0: a newer learner speaks to an older replica, or a foreign producer writes; see the log.",
    ),
)
