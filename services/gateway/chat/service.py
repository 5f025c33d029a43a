"""The heart of chat: from a checked request to choices, with ids, tokens and deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.gateway.chat.admission import Admission
from services.gateway.chat.choice import (
    ChoiceDelta,
    ChoiceDrawer,
    ChoiceEvent,
    ChoiceFinished,
    ChoiceStarted,
    Monotonic,
)
from services.gateway.chat.generation import GenerationRequest
from services.gateway.chat.request import ChatRequest
from services.gateway.identity import Identifier, Identity
from services.gateway.tokens import FeedbackTokens
from services.shared.access.scopes import Principal
from services.shared.domain.events import Clock, NewId
from services.shared.domain.feedback import FeedbackKind
from services.shared.releases.forget_orders import ForgottenRaters

QUEUED_EVENTS = 64
"""Events of all choices that wait for a slow client; more, and the generator's streams wait too."""


class AnswerObserver(Protocol):
    """Hears of what is shown."""

    def answer_started(self, *, rollout_id: str, policy_version: str) -> None:
        """A user is shown the first text of an answer."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request under way. `completion_id` names it to the client."""

    request: ChatRequest
    identity: Identity
    tenant: str
    group_id: str
    first_rollout_ids: tuple[str, ...]
    created: int
    deadline: float
    traceparent: str

    @property
    def completion_id(self) -> str:
        """As OpenAI's ids look."""
        return f"chatcmpl-{self.group_id}"


@dataclass(kw_only=True)
class Choice:
    """A choice as far as it is known."""

    index: int
    rollout_id: str = ""
    policy_version: str = ""
    texts: list[str] = field(default_factory=list)
    finished: ChoiceFinished | None = None

    def apply(self, event: ChoiceEvent) -> None:
        """Takes in the next event."""
        if isinstance(event, ChoiceStarted):
            self.rollout_id, self.policy_version, self.texts = event.rollout_id, event.policy_version, []
        elif isinstance(event, ChoiceDelta):
            self.texts.append(event.text)
        else:
            self.finished = event


class ChatService:
    """Answers chat requests."""

    def __init__(
        self,
        *,
        drawer: ChoiceDrawer,
        identifier: Identifier,
        tokens: FeedbackTokens,
        admission: Admission,
        observer: AnswerObserver,
        forgotten: ForgottenRaters,
        offered_kinds: tuple[FeedbackKind, ...],
        timeout_s: float,
        new_id: NewId,
        clock: Clock,
        monotonic: Monotonic,
    ) -> None:
        self._drawer = drawer
        self._identifier = identifier
        self._tokens = tokens
        self._admission = admission
        self._observer = observer
        self._forgotten = forgotten
        self._offered_kinds = offered_kinds
        self.timeout_s = timeout_s
        self._new_id = new_id
        self._clock = clock
        self._monotonic = monotonic

    def slot(self) -> AbstractAsyncContextManager[None]:
        """To be held while an exchange runs. Raises Busy, Unavailable."""
        return self._admission.slot()

    def open(self, request: ChatRequest, *, caller: Principal, traceparent: str) -> Exchange:
        """Gives a request its ids and its deadline. It is the caller's tenant's.

        Somebody who was forgotten is answered as with `store: false`: nothing is recorded, and nothing can be rated.
        """
        identity = self._identifier.identify(
            request.messages,
            user=request.user,
            conversation_id=request.conversation_id,
            tenant=caller.tenant,
            api_key_id=caller.key_id,
        )
        if self._is_forgotten(request.user, caller.tenant):
            request = replace(request, recorded=False)
        rollout_ids = tuple(self._new_id() for _ in range(request.choices))
        return Exchange(
            request=request,
            identity=identity,
            tenant=caller.tenant,
            group_id=rollout_ids[0] if request.choices == 1 else self._new_id(),
            first_rollout_ids=rollout_ids,
            created=int(self._clock().timestamp()),
            deadline=self._monotonic() + self.timeout_s,
            traceparent=traceparent,
        )

    def kinds(self, exchange: Exchange) -> tuple[FeedbackKind, ...]:
        """What may be said of the exchange's answers."""
        return self._offered_kinds if exchange.request.recorded else ()

    def token(self, exchange: Exchange, rollout_id: str) -> str | None:
        """Feedback token of one choice; None for an answer that is not recorded."""
        if not exchange.request.recorded:
            return None
        return self._tokens.issue(
            rater_id=exchange.identity.rater_id,
            rollout_id=rollout_id,
            prompt_id=exchange.identity.prompt_id,
            kinds=self._offered_kinds,
            tenant=exchange.tenant,
        )

    async def answer(self, exchange: Exchange) -> list[Choice]:
        """All choices, complete. Cancelling it cancels what the generator draws."""
        choices = [Choice(index=index) for index in range(exchange.request.choices)]
        async with aclosing(self._events(exchange, shown=False)) as events:
            async for event in events:
                choices[event.index].apply(event)
        for choice in choices:
            self._observe(exchange, choice.rollout_id, choice.policy_version)
        return choices

    async def stream(self, exchange: Exchange) -> AsyncGenerator[ChoiceEvent, None]:
        """Events of all choices as they come. Closing it cancels what the generator draws."""
        async with aclosing(self._events(exchange, shown=True)) as events:
            async for event in events:
                if isinstance(event, ChoiceStarted):
                    self._observe(exchange, event.rollout_id, event.policy_version)
                yield event

    def _is_forgotten(self, user: str, tenant: str) -> bool:
        """Under any pseudonym that the live keys give them: the order may be older than the newest key."""
        return bool(user) and any(
            self._forgotten.has(tenant, rater_id) for rater_id in self._identifier.rater_ids(user, tenant=tenant)
        )

    def _observe(self, exchange: Exchange, rollout_id: str, policy_version: str) -> None:
        if exchange.request.recorded:
            self._observer.answer_started(rollout_id=rollout_id, policy_version=policy_version)

    async def _events(self, exchange: Exchange, *, shown: bool) -> AsyncGenerator[ChoiceEvent, None]:
        """Merges the choices' events. The first error ends all of them and is raised."""
        queue: asyncio.Queue[ChoiceEvent | Exception | None] = asyncio.Queue(QUEUED_EVENTS)

        async def pump(index: int) -> None:
            try:
                async with aclosing(self._draw(exchange, index, shown=shown)) as events:
                    async for event in events:
                        await queue.put(event)
                await queue.put(None)
            except Exception as error:
                await queue.put(error)

        tasks = [asyncio.create_task(pump(index)) for index in range(exchange.request.choices)]
        try:
            running = len(tasks)
            while running:
                event = await queue.get()
                if isinstance(event, Exception):
                    raise event
                if event is None:
                    running -= 1
                else:
                    yield event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _draw(self, exchange: Exchange, index: int, *, shown: bool) -> AsyncGenerator[ChoiceEvent, None]:
        request, identity = exchange.request, exchange.identity
        template = GenerationRequest(
            rollout_id=exchange.first_rollout_ids[index],
            tenant=exchange.tenant,
            conversation_id=identity.conversation_id,
            prompt_id=identity.prompt_id,
            group_id=exchange.group_id,
            messages=request.messages,
            sampling=request.sampling,
            rater_id=identity.rater_id if request.recorded else "",
            recorded=request.recorded,
            traceparent=exchange.traceparent,
        )
        return self._drawer.draw(template, index=index, deadline=exchange.deadline, shown=shown)
