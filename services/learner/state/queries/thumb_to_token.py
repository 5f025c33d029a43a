"""Thumb-to-token: seconds from a thumb's acknowledgement to the first token of a policy that learned from it.

A policy learned from a thumb when its batch held the thumb, or when the reward model that scored its batch had been
trained on the thumb. Only thumbs that hold their slots count: what its rater took back or replaced is not to be
learned from. A thumb that has not got there counts as `NEVER`.

How much is looked at grows with the thumbs asked for, not with the reward models each was in the training set of:
thumbs that came and went together are looked up together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, select

from services.learner.state.first_served import first_served_time
from services.learner.state.training_sets import Mark, TrainingSets
from services.shared.domain.feedback import FeedbackKind
from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.store.database import Database
from services.shared.store.tables import feedback_slots, releases, uses

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
    """Of the thumbs looked at; `served` of them got there. Without thumbs all figures are `NEVER`."""

    p50_s: float
    p99_s: float
    to_reward_model_p50_s: float
    thumbs: int
    served: int

    @property
    def censored_share(self) -> float:
        """Thumbs that did not get there."""
        return 1 - self.served / self.thumbs if self.thumbs else 0.0


@dataclass(frozen=True, kw_only=True)
class ThumbFigures:
    """What is shown of thumb times."""

    overall: ThumbToToken
    p50_s_by_policy: Mapping[str, float]
    """Of the thumbs that a policy was the first to have learned from; none: it is left out."""


def thumb_to_token(database: Database, *, now: datetime) -> ThumbToToken:
    """The summary of all thumbs accepted until `now`."""
    return summarise(thumb_times(database, now=now))


def thumb_figures(times: Sequence[ThumbTimes]) -> ThumbFigures:
    """See `ThumbFigures`."""
    by_policy: dict[str, list[float]] = {}
    for time in times:
        if time.policy_version:
            by_policy.setdefault(time.policy_version, []).append(time.to_token_s)
    return ThumbFigures(
        overall=summarise(times),
        p50_s_by_policy={version: percentile(mine, 0.5) for version, mine in by_policy.items()},
    )


def summarise(times: Sequence[ThumbTimes]) -> ThumbToToken:
    """See `ThumbToToken`."""
    return ThumbToToken(
        p50_s=percentile([time.to_token_s for time in times], 0.5),
        p99_s=percentile([time.to_token_s for time in times], 0.99),
        to_reward_model_p50_s=percentile([time.to_reward_model_s for time in times], 0.5),
        thumbs=len(times),
        served=sum(time.to_token_s < NEVER for time in times),
    )


def thumb_times(database: Database, *, now: datetime, newest: int | None = None) -> list[ThumbTimes]:
    """One entry a thumb, by accept time, of the so many newest accepted until `now`; None: of all."""
    marks: dict[_Thumb, list[Mark]] = {}
    with database.read() as connection:
        lessons = _Lessons(connection)
        for *thumb, version, kind in connection.execute(_thumbs_with_uses(now, newest)):
            known = marks.setdefault(_Thumb(*thumb), [])
            if version is not None:
                known.append((version, kind))
        times = [_times(thumb, lessons.of(frozenset(some))) for thumb, some in marks.items()]
    return sorted(times, key=lambda time: (time.accept_time, time.feedback_id))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are not above (nearest rank); `NEVER` of none."""
    if not values:
        return NEVER
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class _Thumb(NamedTuple):
    """Columns of `feedback_slots`."""

    tenant: str
    rollout_id: str
    rater_id: str
    feedback_id: str
    accept_time: datetime


@dataclass(frozen=True, kw_only=True)
class _Learned:
    """When a thumb first had an effect; None: not so far."""

    first_token: datetime | None = None
    policy_version: str = ""
    published: datetime | None = None
    """Of a reward model that was trained on it."""


class _Lessons:
    """What releases learned from thumbs, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._sets = TrainingSets(connection)
        self._served = _served_by(connection)
        self._published = _publish_times(connection)
        self._known: dict[frozenset[Mark], _Learned] = {}

    def of(self, marks: frozenset[Mark]) -> _Learned:
        """What came of thumbs that bear these marks in `uses`."""
        if marks not in self._known:
            policies = {version for version, kind in marks if kind == ReleaseKind.POLICY.value}
            reward_models = self._sets.versions([mark for mark in marks if mark[0] not in policies])
            self._known[marks] = self._first(policies | reward_models, reward_models)
        return self._known[marks]

    def _first(self, teachers: set[str], reward_models: set[str]) -> _Learned:
        served = (self._served[version] for version in teachers & self._served.keys())
        first_token, policy_version = min(served, default=(None, ""))
        published = (self._published[version] for version in reward_models & self._published.keys())
        return _Learned(first_token=first_token, policy_version=policy_version, published=min(published, default=None))


def _thumbs_with_uses(now: datetime, newest: int | None) -> Any:
    """Columns of `_Thumb` and a mark, for each thumb that holds its slot and each of its uses (null: there is none)."""
    thumbs = (
        select(*(feedback_slots.c[name] for name in _Thumb._fields))
        .where(
            feedback_slots.c.kind == FeedbackKind.THUMB.value,
            feedback_slots.c.retracted.is_(False),
            feedback_slots.c.accept_time <= now,
        )
        .order_by(feedback_slots.c.accept_time.desc(), feedback_slots.c.feedback_id.desc())
        .limit(newest)
        .subquery()
    )
    same = and_(*(uses.c[name] == thumbs.c[name] for name in ("tenant", "rollout_id", "feedback_id")))
    return select(thumbs, uses.c.version, uses.c.kind).outerjoin(uses, same)


def _served_by(connection: Connection) -> dict[str, tuple[datetime, str]]:
    """For each release that is trained on thumbs: the first token that learned through it, and whose it was.

    Through a policy release itself that is the policy; through a reward model those whose batches it scored.
    """
    query = select(releases.c.version, releases.c.reward_model_version, first_served_time().label("first"))
    found: dict[str, tuple[datetime, str]] = {}
    for row in connection.execute(query.where(*_committed(ReleaseKind.POLICY))):
        if row.first is not None:
            for teacher in (row.version, row.reward_model_version):
                found[teacher] = min(found.get(teacher, (row.first, row.version)), (row.first, row.version))
    return found


def _publish_times(connection: Connection) -> dict[str, datetime]:
    query = select(releases.c.version, releases.c.publish_time).where(
        *_committed(ReleaseKind.REWARD_MODEL), releases.c.publish_time.is_not(None)
    )
    return {row.version: row.publish_time for row in connection.execute(query)}


def _committed(kind: ReleaseKind) -> tuple[ColumnElement[bool], ...]:
    return releases.c.kind == kind.value, releases.c.state != ReleaseState.REFUSED.value


def _times(thumb: _Thumb, learned: _Learned) -> ThumbTimes:
    return ThumbTimes(
        rollout_id=thumb.rollout_id,
        feedback_id=thumb.feedback_id,
        accept_time=thumb.accept_time,
        to_token_s=_seconds(thumb.accept_time, learned.first_token),
        to_reward_model_s=_seconds(thumb.accept_time, learned.published),
        policy_version=learned.policy_version,
    )


def _seconds(accepted: datetime, time: datetime | None) -> float:
    """From the thumb to a time; `NEVER` to none. A clock that is a little behind gives no negative wait."""
    return NEVER if time is None else max(0.0, (time - accepted).total_seconds())
