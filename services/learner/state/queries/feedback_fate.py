"""Where a feedback is, and what learned from it. Computed from the rows, never stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select

from services.learner.state.training_sets import reward_models_trained_on
from services.shared.domain.errors import NotFound
from services.shared.domain.events import Clock
from services.shared.domain.feedback import FeedbackKind, FeedbackState
from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.store.database import Database
from services.shared.store.tables import experiences, features, feedback, feedback_slots, releases, scores, uses

_UNUSED = {
    FeedbackKind.RATING: "kept; the reward trainer does not use ratings yet",
    FeedbackKind.COMPARISON: "kept; the reward trainer does not use comparisons yet",
    FeedbackKind.EDIT: "kept; the reward trainer does not use edits yet",
    FeedbackKind.COMMENT: "kept for people to read; comments train nothing",
}


@dataclass(frozen=True, kw_only=True)
class FeedbackFate:
    """`reason` says why a state is final, and what training does with the kind; it may be empty."""

    feedback_id: str
    rollout_id: str
    rater_id: str
    kind: FeedbackKind
    revision: int
    state: FeedbackState
    reason: str
    trained_into: tuple[str, ...]
    trained_into_through_reward_model: tuple[str, ...]
    reward_model_versions: tuple[str, ...]


class FeedbackFates:
    """Looks feedback up by the id that its sender chose."""

    def __init__(self, database: Database, *, clock: Clock, join_window_s: float, orphan_after_s: float) -> None:
        self._database = database
        self._clock = clock
        self._join_window = timedelta(seconds=join_window_s)
        self._orphan_after = timedelta(seconds=orphan_after_s)

    def find(self, *, tenant: str, feedback_id: str, rater_id: str = "", rollout_id: str = "") -> FeedbackFate:
        """Raises NotFound: not ingested (yet).

        Where several slots have a statement of this id, the one of `rater_id` is meant, among those the one on
        `rollout_id`, and the first accepted one among equals: no rater can stand before another by taking its ids.
        """
        query = (
            select(feedback)
            .where(feedback.c.tenant == tenant, feedback.c.feedback_id == feedback_id)
            .order_by(
                (feedback.c.rater_id == rater_id).desc(),
                (feedback.c.rollout_id == rollout_id).desc(),
                feedback.c.accept_time,
                feedback.c.event_id,
            )
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFound(f"there is no feedback {feedback_id!r} (yet).", field="feedback_id")
            state, reason = self._state(connection, row)
            rollout = (uses.c.rollout_id == row.rollout_id, uses.c.tenant == tenant)
            policies = select(uses.c.version).where(uses.c.kind == ReleaseKind.POLICY.value, *rollout)
            direct = _oldest_first(connection, connection.scalars(policies))
            of_it = (*rollout, uses.c.feedback_id == row.feedback_id)
            through = _oldest_first(connection, reward_models_trained_on(connection, *of_it))
            return FeedbackFate(
                feedback_id=row.feedback_id,
                rollout_id=row.rollout_id,
                rater_id=row.rater_id,
                kind=FeedbackKind(row.kind),
                revision=row.revision,
                state=state,
                reason=reason,
                trained_into=direct,
                trained_into_through_reward_model=_scored_by(connection, through),
                reward_model_versions=through,
            )

    def _state(self, connection: Connection, row: Any) -> tuple[FeedbackState, str]:
        if row.reject_reason:
            return FeedbackState.REJECTED, row.reject_reason
        if row.quarantine_reason:
            return FeedbackState.QUARANTINED, row.quarantine_reason
        slot = connection.execute(
            select(feedback_slots).where(
                *(feedback_slots.c[name] == getattr(row, name) for name in ("tenant", "rater_id", "rollout_id", "kind"))
            )
        ).one()
        if slot.feedback_id != row.feedback_id:
            return FeedbackState.SUPERSEDED, f"{slot.feedback_id} holds the slot"
        if row.retracted:
            return FeedbackState.RETRACTED, ""
        rollout = select(experiences.c.end_time).where(
            experiences.c.rollout_id == row.rollout_id, experiences.c.tenant == row.tenant
        )
        end_time = connection.scalar(rollout)
        if end_time is None:
            if self._clock() - row.accept_time > self._orphan_after:
                return FeedbackState.ORPHANED, "its rollout never came"
            return FeedbackState.WAITING, _use(row.kind)
        if row.accept_time - end_time > self._join_window:
            return FeedbackState.LATE, _use(row.kind) or _use_of_late_thumb(connection, row)
        return FeedbackState.JOINED, _use(row.kind)


def _use(kind: str) -> str:
    """What training does with a kind, where that is not everything."""
    return _UNUSED.get(FeedbackKind(kind), "")


def _use_of_late_thumb(connection: Connection, row: Any) -> str:
    """The reward model's trainer reads a thumb beside its answer's features, which come with the score."""
    scored, has_features = (
        connection.scalar(
            select(table.c.rollout_id)
            .where(table.c.rollout_id == row.rollout_id, table.c.tenant == row.tenant)
            .limit(1)
        )
        for table in (scores, features)
    )
    if scored and not has_features:
        return "it trains nothing: what the reward model reads of its answer is past its retention"
    return "it trains the reward model alone"


def _oldest_first(connection: Connection, versions: Iterable[str]) -> tuple[str, ...]:
    """Releases of one kind."""
    query = select(releases.c.version).where(releases.c.version.in_(set(versions))).order_by(releases.c.number)
    return tuple(connection.scalars(query))


def _scored_by(connection: Connection, reward_models: tuple[str, ...]) -> tuple[str, ...]:
    query = (
        select(releases.c.version)
        .where(
            releases.c.reward_model_version.in_(reward_models),
            releases.c.kind == ReleaseKind.POLICY.value,
            releases.c.state != ReleaseState.REFUSED.value,
        )
        .order_by(releases.c.number)
    )
    return tuple(connection.scalars(query))
