"""Thumb-to-token: seconds from a thumb's acknowledgement to the first token of a policy that learned from it.

A policy learned from a thumb when its batch held the thumb, or when the reward model that scored its batch had been
trained on the thumb. Only thumbs that hold their slots count: what its rater took back or replaced is not to be
learned from. A thumb that has not got there counts as `NEVER`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from services.shared.domain.feedback import FeedbackKind
from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.domain.rollout import Purpose
from services.shared.store.database import Database
from services.shared.store.tables import feedback_slots, releases, rollout_versions, uses

NEVER = 1e9
"""Seconds of a thumb that never gets there."""


@dataclass(frozen=True, kw_only=True)
class ThumbTimes:
    """Seconds since one thumb was acknowledged; `NEVER`: not so far."""

    rollout_id: str
    feedback_id: str
    accept_time: datetime
    to_token_s: float
    to_reward_model_s: float
    policy_version: str
    """The policy that served the first such token; "" for none."""


@dataclass(frozen=True, kw_only=True)
class ThumbToToken:
    """Of all thumbs; `served` of them got there. Without thumbs all figures are `NEVER`."""

    p50_s: float
    p99_s: float
    to_reward_model_p50_s: float
    thumbs: int
    served: int

    @property
    def censored_share(self) -> float:
        """Thumbs that did not get there."""
        return 1 - self.served / self.thumbs if self.thumbs else 0.0


def thumb_to_token(database: Database, *, now: datetime) -> ThumbToToken:
    """The summary of all thumbs accepted until `now`."""
    return summarise(thumb_times(database, now=now))


def summarise(times: Sequence[ThumbTimes]) -> ThumbToToken:
    """See `ThumbToToken`."""
    return ThumbToToken(
        p50_s=percentile([time.to_token_s for time in times], 0.5),
        p99_s=percentile([time.to_token_s for time in times], 0.99),
        to_reward_model_p50_s=percentile([time.to_reward_model_s for time in times], 0.5),
        thumbs=len(times),
        served=sum(time.to_token_s < NEVER for time in times),
    )


def thumb_times(database: Database, *, now: datetime) -> list[ThumbTimes]:
    """One entry a thumb, by accept time."""
    with database.read() as connection:
        served = _served_by(connection)
        published = {row.version: row.publish_time for row in _committed(connection, ReleaseKind.REWARD_MODEL)}
        rows = connection.execute(_thumbs_with_uses(now)).all()
    thumbs: dict[tuple[str, str, str], ThumbTimes] = {}
    for row in rows:
        key = (row.tenant, row.rollout_id, row.feedback_id)
        known = thumbs.get(key, _never(row))
        token_s, version = min(
            ((_seconds(row.accept_time, first), version) for version, first in served.get(row.version, ())),
            default=(NEVER, ""),
        )
        if token_s < known.to_token_s:
            known = replace(known, to_token_s=token_s, policy_version=version)
        reward_s = _seconds(row.accept_time, published.get(row.version))
        thumbs[key] = replace(known, to_reward_model_s=min(known.to_reward_model_s, reward_s))
    return sorted(thumbs.values(), key=lambda thumb: (thumb.accept_time, thumb.feedback_id))


def first_served_time(connection: Connection, version: str) -> datetime | None:
    """When a user got the first token of a policy version; one step down an index."""
    query = select(func.min(rollout_versions.c.first_token_time)).where(
        rollout_versions.c.policy_version == version, rollout_versions.c.purpose == Purpose.USER.value
    )
    time: datetime | None = connection.scalar(query)
    return time


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are not above (nearest rank); `NEVER` of none."""
    if not values:
        return NEVER
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _thumbs_with_uses(now: datetime) -> Any:
    """Each thumb that holds its slot, with each release that was trained on it (version null: with none)."""
    shared = ("tenant", "rollout_id", "feedback_id")
    trained = and_(*(uses.c[name] == feedback_slots.c[name] for name in shared))
    return (
        select(*(feedback_slots.c[name] for name in (*shared, "accept_time")), uses.c.version)
        .outerjoin(uses, trained)
        .where(
            feedback_slots.c.kind == FeedbackKind.THUMB.value,
            feedback_slots.c.retracted.is_(False),
            feedback_slots.c.accept_time <= now,
        )
    )


def _served_by(connection: Connection) -> dict[str, list[tuple[str, datetime]]]:
    """For each release that is trained on thumbs: the policies that learned through it, with their first tokens.

    Through a policy release itself that is the policy; through a reward model those whose batches it scored.
    """
    found: dict[str, list[tuple[str, datetime]]] = {}
    for row in _committed(connection, ReleaseKind.POLICY):
        first = first_served_time(connection, row.version)
        if first is not None:
            for teacher in (row.version, row.reward_model_version):
                found.setdefault(teacher, []).append((row.version, first))
    return found


def _committed(connection: Connection, kind: ReleaseKind) -> Sequence[Any]:
    query = select(releases).where(releases.c.kind == kind.value, releases.c.state != ReleaseState.REFUSED.value)
    return connection.execute(query).all()


def _never(row: Any) -> ThumbTimes:
    return ThumbTimes(
        rollout_id=row.rollout_id,
        feedback_id=row.feedback_id,
        accept_time=row.accept_time,
        to_token_s=NEVER,
        to_reward_model_s=NEVER,
        policy_version="",
    )


def _seconds(accepted: datetime, time: datetime | None) -> float:
    """From the thumb to a time; `NEVER` to none. A clock that is a little behind gives no negative wait."""
    return NEVER if time is None else max(0.0, (time - accepted).total_seconds())
