"""Takes feedback, and says where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from services.gateway.feedback.body import AnyStatement, ComparisonStatement
from services.gateway.feedback.earlier import EarlierRevisions
from services.gateway.feedback.fate import FeedbackFate, FeedbackLookup, SpooledStatements, fate_before_ingest
from services.gateway.feedback.recent import Acknowledged, RecentFeedback
from services.gateway.feedback.sink import FeedbackSink
from services.gateway.feedback.statement import check_claims, check_pair, statement
from services.gateway.feedback.turns import StatementId, Turns
from services.gateway.forgetting.refusal import person_forgotten
from services.gateway.tokens import FeedbackClaims, FeedbackTokens
from services.shared.domain.errors import Conflict, DeadlineExceeded, NotFound, PermissionDenied, Unavailable
from services.shared.domain.events import Clock, EventMeta, NewId
from services.shared.domain.feedback import Feedback, FeedbackState
from services.shared.releases.forget_orders import ForgottenRaters

LOOKUP_TIMEOUT_S = 2.0


class RaterLimits(Protocol):
    """How often a rater may do a thing."""

    def take(self, key: str) -> None:
        """Raises Busy, with the seconds to wait."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a sender is told. `repeated`: the statement was known, and nothing was written."""

    acknowledged: Acknowledged
    repeated: bool


class FeedbackService:
    """Accepts statements and follows them. `on_accepted` hears of each new one.

    A rater has `limits` for what is new, and `read_limits` for asking where it is.
    """

    def __init__(
        self,
        *,
        tokens: FeedbackTokens,
        sink: FeedbackSink,
        lookup: FeedbackLookup,
        spooled: SpooledStatements,
        recent: RecentFeedback,
        earlier: EarlierRevisions,
        limits: RaterLimits,
        read_limits: RaterLimits,
        forgotten: ForgottenRaters,
        on_accepted: Callable[[Feedback], None],
        deployment: str,
        new_id: NewId,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._sink = sink
        self._lookup = lookup
        self._spooled = spooled
        self._recent = recent
        self._earlier = earlier
        self._limits = limits
        self._read_limits = read_limits
        self._forgotten = forgotten
        self._on_accepted = on_accepted
        self._deployment = deployment
        self._new_id = new_id
        self._clock = clock
        self._turns = Turns()
        self._in_hand: dict[str, tuple[str, str]] = {}
        """Tenant and rater of statements that are being made durable, by event id."""

    def has_in_hand(self, tenant: str, rater_id: str) -> bool:
        """Whether a statement of a rater is on its way to log or disk. To be asked on the event loop."""
        return (tenant, rater_id) in self._in_hand.values()

    async def submit(self, body: AnyStatement, *, traceparent: str) -> Answer:
        """Returns when the statement is durable.

        Raises Unauthenticated, PermissionDenied, InvalidInput, Conflict (the id was used for another statement), Busy
        (too many of this rater) and Unavailable (not durable; sending again is safe).
        """
        claims = self._tokens.check(body.token)
        self._check_not_forgotten(claims.tenant, claims.rater_id)
        check_claims(body, claims)
        rejected = self._check_rejected(body, claims)
        if body.feedback_id is None:
            feedback = self._statement(body, claims, rejected, feedback_id=self._new_id(), traceparent=traceparent)
            return await self._store(feedback)
        feedback = self._statement(body, claims, rejected, feedback_id=body.feedback_id, traceparent=traceparent)
        statement_id = _statement_id(feedback)
        async with self._turns.of(statement_id):
            known = self._recent.find(statement_id)
            if known is not None:
                return _same_again(known, feedback)
            stored = await self._earlier.find(body.feedback_id, kind=body.kind, claims=claims)
            self._check_not_forgotten(claims.tenant, claims.rater_id)
            return await self._store(feedback if stored is None else replace(feedback, revision=stored))

    def _check_not_forgotten(self, tenant: str, rater_id: str) -> None:
        if self._forgotten.has(tenant, rater_id):
            raise person_forgotten()

    def _check_rejected(self, body: AnyStatement, claims: FeedbackClaims) -> FeedbackClaims | None:
        """Claims of a comparison's other token."""
        if not isinstance(body, ComparisonStatement) or body.rejected_token is None:
            return None
        rejected = self._tokens.check(body.rejected_token, field="rejected_token")
        check_pair(claims, rejected)
        return rejected

    def _statement(
        self,
        body: AnyStatement,
        claims: FeedbackClaims,
        rejected: FeedbackClaims | None,
        *,
        feedback_id: str,
        traceparent: str,
    ) -> Feedback:
        meta = EventMeta(
            event_id=self._new_id(),
            deployment=self._deployment,
            tenant=claims.tenant,
            event_time=self._clock(),
            traceparent=traceparent,
        )
        return statement(body=body, claims=claims, rejected=rejected, meta=meta, feedback_id=feedback_id)

    async def _store(self, feedback: Feedback) -> Answer:
        tenant, rater_id, event_id = feedback.meta.tenant, feedback.rater_id, feedback.meta.event_id
        self._limits.take(f"{tenant}/{rater_id}")
        self._in_hand[event_id] = tenant, rater_id
        try:
            state = await self._sink.store(feedback)
        finally:
            del self._in_hand[event_id]
        self._check_not_forgotten(tenant, rater_id)  # they may have been meanwhile: nothing is remembered then
        acknowledged = Acknowledged.of(feedback, state)
        self._recent.remember(_statement_id(feedback), acknowledged)
        self._on_accepted(feedback)
        return Answer(acknowledged=acknowledged, repeated=False)

    async def fate(self, feedback_id: str, *, token: str) -> FeedbackFate:
        """Where a statement is. Raises Unauthenticated, PermissionDenied for another rater's, NotFound, Unavailable,
        and Busy for a rater who asks too often.
        """
        claims = self._tokens.check(token, field="Authorization")
        self._read_limits.take(f"{claims.tenant}/{claims.rater_id}")
        fate = await self._fate(
            feedback_id, tenant=claims.tenant, rater_id=claims.rater_id, rollout_id=claims.rollout_id
        )
        if fate.rater_id != claims.rater_id:
            raise PermissionDenied(
                "This feedback is another rater's. Use a token of the answer that it was given for.",
                reason="OTHER_RATER",
            )
        return fate

    async def fate_for_tenant(self, feedback_id: str, *, tenant: str) -> FeedbackFate:
        """Where any statement of a tenant is, for who holds a key for that. Raises NotFound, Unavailable."""
        return await self._fate(feedback_id, tenant=tenant, rater_id="", rollout_id="")

    async def _fate(self, feedback_id: str, *, tenant: str, rater_id: str, rollout_id: str) -> FeedbackFate:
        """The learner's word on the rater's statement, else what is known here, else the learner's on another's.
        Rater "" is anybody.
        """
        try:
            told = await self._lookup.find(
                tenant=tenant,
                feedback_id=feedback_id,
                rater_id=rater_id,
                rollout_id=rollout_id,
                timeout_s=LOOKUP_TIMEOUT_S,
            )
        except (Unavailable, DeadlineExceeded) as error:
            here = await self._fate_here(feedback_id, tenant, rater_id)
            if here is None:
                raise _learner_away() from error
            return here
        if told is not None and rater_id in ("", told.rater_id):
            return told
        found = await self._fate_here(feedback_id, tenant, rater_id) or told
        if found is None:
            raise _unknown(feedback_id)
        return found

    async def _fate_here(self, feedback_id: str, tenant: str, rater_id: str) -> FeedbackFate | None:
        """As far as this gateway knows by itself. Raises Unavailable when only its disk could tell, and does not."""
        if rater_id:
            known = self._recent.find(StatementId(tenant, rater_id, feedback_id))
        else:
            known = self._recent.find_of_tenant(tenant, feedback_id)
        if known is not None and known.state is FeedbackState.ACCEPTED:
            return fate_before_ingest(known, known.state)
        try:
            spooled = await self._spooled.find(tenant=tenant, rater_id=rater_id, feedback_id=feedback_id)
        except Unavailable:
            if known is None:
                raise
            return fate_before_ingest(known, known.state)
        if spooled is not None:
            return spooled
        return None if known is None else fate_before_ingest(known, FeedbackState.ACCEPTED)


def _statement_id(feedback: Feedback) -> StatementId:
    return StatementId(feedback.meta.tenant, feedback.rater_id, feedback.feedback_id)


def _same_again(known: Acknowledged, feedback: Feedback) -> Answer:
    if not known.says_the_same(feedback):
        raise Conflict(
            f"feedback_id {feedback.feedback_id!r} was used for another statement. To change one's mind, send a new "
            "feedback_id (or none).",
            reason="FEEDBACK_ID_REUSED",
            field="feedback_id",
        )
    return Answer(acknowledged=known, repeated=True)


def _learner_away() -> Unavailable:
    return Unavailable(
        "The learner, which knows where feedback is, is away for the moment. Ask again.", reason="LEARNER_UNAVAILABLE"
    )


def _unknown(feedback_id: str) -> NotFound:
    return NotFound(
        f"No feedback {feedback_id[:64]!a} is known (yet). If it was just sent to another gateway, ask again.",
        reason="FEEDBACK_NOT_FOUND",
    )
