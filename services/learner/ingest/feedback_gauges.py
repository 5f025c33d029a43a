"""Feedback by state, as gauges: where the newest ones are, how many wait for their rollout, and since when.

A store may hold many millions of feedback, so the cost of a look is bounded: the newest `SAMPLE` by accept time are
classified one by one, and of the experiences without a rollout the newest `DANGLING` by id are looked at, by index:
those whose rollout never came stay for ever, and must not stand before those that wait.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, select

from services.learner.state.statements import SLOT
from services.shared.domain.events import Clock
from services.shared.domain.feedback import FeedbackState
from services.shared.store.database import Database
from services.shared.store.tables import experiences, feedback, feedback_slots
from services.shared.telemetry.metrics import Metrics

SAMPLE = 10_000
DANGLING = 100_000

SHOWN = (
    FeedbackState.WAITING,
    FeedbackState.JOINED,
    FeedbackState.LATE,
    FeedbackState.SUPERSEDED,
    FeedbackState.RETRACTED,
    FeedbackState.ORPHANED,
    FeedbackState.QUARANTINED,
    FeedbackState.REJECTED,
)
"""States that the store knows; the gateway shows those before it."""


class FeedbackGauges:
    """One process refreshes them; the others show none."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        *,
        clock: Clock,
        join_window_s: float,
        orphan_after_s: float,
        sample: int = SAMPLE,
        dangling: int = DANGLING,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._join_window = timedelta(seconds=join_window_s)
        self._orphan_after = timedelta(seconds=orphan_after_s)
        self._sample = sample
        self._dangling = dangling
        self._showing = False

    def refresh(self) -> None:
        """One bounded look at the store."""
        now = self._clock()
        states = self._states(now)
        for state in SHOWN:
            self._metrics.set("thumbloop_feedback_state", states[state], state=state.value)
        waiting, oldest = self._waiting(now)
        self._metrics.set("thumbloop_feedback_waiting", waiting)
        age = (now - oldest).total_seconds() if oldest else 0.0
        self._metrics.set("thumbloop_feedback_oldest_waiting_seconds", max(0.0, age))
        self._showing = True

    def clear(self) -> None:
        """Another process shows them now."""
        if self._showing:
            for state in SHOWN:
                self._metrics.remove("thumbloop_feedback_state", state=state.value)
            for name in ("thumbloop_feedback_waiting", "thumbloop_feedback_oldest_waiting_seconds"):
                self._metrics.set(name, 0)
            self._showing = False

    def _states(self, now: datetime) -> Counter[FeedbackState]:
        newest = select(feedback).order_by(feedback.c.accept_time.desc()).limit(self._sample).subquery()
        slot = and_(*(feedback_slots.c[name] == newest.c[name] for name in SLOT))
        rollout = and_(experiences.c.rollout_id == newest.c.rollout_id, experiences.c.tenant == newest.c.tenant)
        query = (
            select(
                newest.c.feedback_id,
                newest.c.retracted,
                newest.c.accept_time,
                newest.c.quarantine_reason,
                newest.c.reject_reason,
                feedback_slots.c.feedback_id.label("holder"),
                experiences.c.end_time,
            )
            .select_from(newest)
            .outerjoin(feedback_slots, slot)
            .outerjoin(experiences, rollout)
        )
        with self._database.read() as connection:
            return Counter(self._state(row, now) for row in connection.execute(query))

    def _state(self, row: Any, now: datetime) -> FeedbackState:
        """As `FeedbackFates` says it of one."""
        if row.reject_reason:
            return FeedbackState.REJECTED
        if row.quarantine_reason:
            return FeedbackState.QUARANTINED
        if row.holder != row.feedback_id:
            return FeedbackState.SUPERSEDED
        if row.retracted:
            return FeedbackState.RETRACTED
        if row.end_time is None:
            return FeedbackState.ORPHANED if now - row.accept_time > self._orphan_after else FeedbackState.WAITING
        return FeedbackState.LATE if row.accept_time - row.end_time > self._join_window else FeedbackState.JOINED

    def _waiting(self, now: datetime) -> tuple[int, datetime | None]:
        """Feedback whose rollout may still come: how many, and the accept time of the oldest."""
        dangling = (
            select(experiences.c.rollout_id, experiences.c.tenant)
            .where(experiences.c.end_time.is_(None))
            .order_by(experiences.c.rollout_id.desc())  # ids grow with time
            .limit(self._dangling)
            .subquery()
        )
        query = (
            select(func.count(), func.min(feedback_slots.c.accept_time))
            .select_from(dangling)
            .join(feedback_slots, feedback_slots.c.rollout_id == dangling.c.rollout_id)
            .where(
                feedback_slots.c.tenant == dangling.c.tenant,
                feedback_slots.c.retracted.is_(False),
                feedback_slots.c.accept_time >= now - self._orphan_after,
            )
        )
        with self._database.read() as connection:
            count, oldest = connection.execute(query).one()
        return int(count), oldest
