"""Takes feedback, and says where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.gateway.feedback.body import FeedbackRequestBody
from services.gateway.feedback.recent import Acknowledged, RecentFeedback
from services.gateway.feedback.sink import FeedbackSink
from services.gateway.feedback.statement import check_claims, check_kind, statement
from services.gateway.tokens import FeedbackTokens
from services.shared.domain.errors import Conflict, DeadlineExceeded, NotFound, PermissionDenied, Unavailable
from services.shared.domain.events import Clock, EventMeta, NewId
from services.shared.domain.feedback import Feedback, FeedbackState

LOOKUP_TIMEOUT_S = 2.0


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

    async def find(self, *, tenant: str, feedback_id: str, timeout_s: float) -> FeedbackFate | None:
        """None: not ingested (yet). Raises Unavailable, DeadlineExceeded."""


class FeedbackService:
    """Accepts statements and follows them. `on_accepted` hears of each new one."""

    def __init__(
        self,
        *,
        tokens: FeedbackTokens,
        sink: FeedbackSink,
        lookup: FeedbackLookup,
        recent: RecentFeedback,
        on_accepted: Callable[[Feedback], None],
        deployment: str,
        new_id: NewId,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._sink = sink
        self._lookup = lookup
        self._recent = recent
        self._on_accepted = on_accepted
        self._deployment = deployment
        self._new_id = new_id
        self._clock = clock

    async def submit(self, body: FeedbackRequestBody, *, traceparent: str) -> Acknowledged:
        """Returns when the statement is durable.

        Raises Unauthenticated, PermissionDenied, InvalidInput, Conflict (the id was used for another statement) and
        Unavailable (not durable; sending again is safe).
        """
        kind = check_kind(body.kind)
        claims = self._tokens.check(body.token)
        check_claims(body, kind, claims)
        feedback_id = body.feedback_id or self._new_id()
        meta = EventMeta(
            event_id=self._new_id(),
            deployment=self._deployment,
            tenant=claims.tenant,
            event_time=self._clock(),
            traceparent=traceparent,
        )
        feedback = statement(body=body, kind=kind, claims=claims, meta=meta, feedback_id=feedback_id)
        known = self._recent.find(rater_id=claims.rater_id, feedback_id=feedback_id)
        if known is not None:
            return _same_again(known, feedback)
        acknowledged = Acknowledged(feedback=feedback, state=await self._sink.store(feedback))
        self._recent.remember(acknowledged)
        self._on_accepted(feedback)
        return acknowledged

    async def fate(self, feedback_id: str, *, token: str) -> FeedbackFate:
        """Where a statement is. Raises PermissionDenied for another rater's, NotFound, Unavailable."""
        claims = self._tokens.check(token)
        known = self._recent.find(rater_id=claims.rater_id, feedback_id=feedback_id)
        try:
            fate = await self._lookup.find(tenant=claims.tenant, feedback_id=feedback_id, timeout_s=LOOKUP_TIMEOUT_S)
        except (Unavailable, DeadlineExceeded) as error:
            if known is None:
                raise Unavailable(
                    "The learner, which knows where feedback is, is away for the moment. Ask again.",
                    reason="LEARNER_UNAVAILABLE",
                ) from error
            fate = None
        if fate is not None and fate.rater_id == claims.rater_id:
            return fate
        if known is not None:
            return _accepted(known)
        if fate is not None:
            raise PermissionDenied(
                "This feedback is another rater's. Use a token of the answer that it was given for.",
                reason="OTHER_RATER",
            )
        raise NotFound(
            f"No feedback {feedback_id[:64]!a} is known (yet). If it was just sent to another gateway, ask again.",
            reason="FEEDBACK_NOT_FOUND",
        )


def _same_again(known: Acknowledged, feedback: Feedback) -> Acknowledged:
    if not known.says_the_same(feedback):
        raise Conflict(
            f"feedback_id {feedback.feedback_id!r} was used for another statement. To change one's mind, send a new "
            "feedback_id (or none).",
            reason="FEEDBACK_ID_REUSED",
            field="feedback_id",
        )
    return known


def _accepted(known: Acknowledged) -> FeedbackFate:
    feedback = known.feedback
    return FeedbackFate(
        feedback_id=feedback.feedback_id,
        state=known.state,
        rollout_id=feedback.rollout_id,
        rater_id=feedback.rater_id,
        kind=str(feedback.kind),
        revision=feedback.revision,
    )
