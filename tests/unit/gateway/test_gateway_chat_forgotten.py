"""Who was forgotten is not recorded again: not under the pseudonym that a newer key gives them either."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest

from services.gateway.chat.admission import Admission
from services.gateway.chat.choice import ChoiceDrawer
from services.gateway.chat.generation import GenerationRequest, GeneratorStatus, Part
from services.gateway.chat.request import ChatRequest
from services.gateway.chat.service import ChatService, Exchange
from services.gateway.feedback.statement import OFFERED_KINDS
from services.gateway.identity import Identifier
from services.gateway.releases.tally import ThumbTally
from services.gateway.tokens import FeedbackTokens
from services.shared.access.scopes import anonymous
from services.shared.domain.rollout import ChatMessage, Role, Sampling
from services.shared.ids import new_id
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.secrets import Key, KeyRing, KeyUse

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OLD = Key(id="k1", secret=b"1" * 32, created_time=NOW - timedelta(days=365))
NEW = Key(id="k2", secret=b"2" * 32, created_time=NOW)
TENANT = "acme"


class NoGenerator:
    """These requests are opened, not answered."""

    def generate(self, request: GenerationRequest, *, timeout_s: float) -> AsyncGenerator[Part, None]:
        raise NotImplementedError

    async def status(self, *, timeout_s: float) -> GeneratorStatus:
        raise NotImplementedError


def identifier(*rater_keys: Key) -> Identifier:
    return Identifier(
        tenant=TENANT,
        prompt_keys=KeyRing(use=KeyUse.PROMPT, keys=(OLD,)),
        conversation_keys=KeyRing(use=KeyUse.CONVERSATION, keys=(OLD,)),
        rater_keys=KeyRing(use=KeyUse.RATER, keys=rater_keys),
        new_id=new_id,
    )


def chat(by: Identifier, forgotten: ForgottenRaters) -> ChatService:
    """As it is wired."""
    return ChatService(
        drawer=ChoiceDrawer(
            generator=NoGenerator(), retry_window_s=1, new_id=new_id, monotonic=lambda: 0.0, on_retry=lambda: None
        ),
        identifier=by,
        tokens=FeedbackTokens(
            deployment="prod",
            tenant=TENANT,
            keys=KeyRing(use=KeyUse.FEEDBACK_TOKEN, keys=(OLD,)),
            ttl=timedelta(days=30),
            clock=lambda: NOW,
        ),
        admission=Admission(1),
        observer=ThumbTally(1),
        forgotten=forgotten,
        offered_kinds=OFFERED_KINDS,
        timeout_s=1,
        new_id=new_id,
        clock=lambda: NOW,
        monotonic=lambda: 0.0,
    )


def opened(service: ChatService, user: str, *, tenant: str = TENANT) -> Exchange:
    request = ChatRequest(
        model="m",
        messages=(ChatMessage(role=Role.USER, content="Hi"),),
        sampling=Sampling(temperature=1.0, max_tokens=4),
        choices=1,
        stream=False,
        include_usage=False,
        user=user,
        conversation_id="",
        recorded=True,
    )
    return service.open(request, caller=anonymous(tenant), traceparent="")


@pytest.mark.parametrize("now", [(OLD,), (NEW, OLD)], ids=["under the same key", "under a newer key"])
def test_who_was_forgotten_is_not_recorded_while_the_key_is_in_the_ring(now: tuple[Key, ...]) -> None:
    forgotten = ForgottenRaters()
    for rater_id in identifier(OLD).rater_ids("alice", tenant=TENANT):
        forgotten.add(TENANT, rater_id)
    service = chat(identifier(*now), forgotten)
    exchange = opened(service, "alice")
    assert not exchange.request.recorded
    assert service.token(exchange, exchange.first_rollout_ids[0]) is None
    assert service.kinds(exchange) == ()


def test_others_are_recorded() -> None:
    forgotten = ForgottenRaters()
    for rater_id in identifier(OLD).rater_ids("alice", tenant=TENANT):
        forgotten.add(TENANT, rater_id)
    service = chat(identifier(NEW, OLD), forgotten)
    for exchange in (opened(service, "bob"), opened(service, ""), opened(service, "alice", tenant="umbrella")):
        assert exchange.request.recorded
        assert service.token(exchange, exchange.first_rollout_ids[0])
