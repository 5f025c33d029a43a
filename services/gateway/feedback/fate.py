"""Where a statement is: what is told of it, and who knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.gateway.feedback.recent import Acknowledged
from services.shared.domain.feedback import Feedback, FeedbackState


@dataclass(frozen=True, kw_only=True)
class FeedbackFate:
    """Where a statement is, and what learned from it."""

    feedback_id: str
    state: FeedbackState
    reason: str = ""
    rollout_id: str
    rater_id: str
    kind: str
    revision: int
    trained_into: tuple[str, ...] = ()
    trained_into_through_reward_model: tuple[str, ...] = ()
    reward_model_versions: tuple[str, ...] = ()


class FeedbackLookup(Protocol):
    """Knows what was ingested: the learner."""

    async def find(
        self, *, tenant: str, feedback_id: str, rater_id: str, rollout_id: str, timeout_s: float
    ) -> FeedbackFate | None:
        """None: not ingested (yet). Where raters chose the same id, `rater_id`'s is meant, first that on `rollout_id`.

        Raises Unavailable, DeadlineExceeded.
        """


class SpooledStatements(Protocol):
    """Knows what lies on this gateway's disk."""

    async def find(self, *, tenant: str, rater_id: str, feedback_id: str) -> FeedbackFate | None:
        """Spooled, or rejected since Kafka will never take it. None: it does not lie there (any more). Rater "" is
        anybody of the tenant. Raises Unavailable.
        """


class NothingSpooled:
    """Of a gateway without a spool."""

    async def find(self, *, tenant: str, rater_id: str, feedback_id: str) -> FeedbackFate | None:
        """See SpooledStatements."""
        return None


_REASONS = {
    FeedbackState.ACCEPTED: "Kafka has it; the learner has not read it yet",
    FeedbackState.SPOOLED: "on the gateway's disk; it goes to Kafka by itself",
}


def fate_before_ingest(said: Feedback | Acknowledged, state: FeedbackState, *, reason: str = "") -> FeedbackFate:
    """Of a statement that was acknowledged here and that the learner does not know (yet)."""
    return FeedbackFate(
        feedback_id=said.feedback_id,
        state=state,
        reason=reason or _REASONS.get(state, ""),
        rollout_id=said.rollout_id,
        rater_id=said.rater_id,
        kind=str(said.kind),
        revision=said.revision,
    )
