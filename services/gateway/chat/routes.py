"""Routes of the chat API."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, Response

from services.gateway.access.http_access import HttpAccess, caller_of
from services.gateway.chat.body import ChatBody
from services.gateway.chat.choice import Monotonic
from services.gateway.chat.request import ChatLimits, parse_request
from services.gateway.chat.response import ChatRenderer
from services.gateway.chat.service import ChatService, Exchange
from services.gateway.chat.stream import ClientGoneError, EventStream, render_stream, unless_gone
from services.gateway.documents import ANSWER_DOCUMENT, error_documents
from services.gateway.tracing import valid_traceparent
from services.shared.domain.errors import NotFound

CLIENT_CLOSED_REQUEST = 499
"""Nobody sees it but the metrics."""
SLOW_CLIENT_S = 30.0
"""How much longer than an answer's deadline a client may take to read it."""


def chat_router(
    *,
    service: ChatService,
    access: HttpAccess,
    limits: ChatLimits,
    model: Callable[[], dict[str, Any]],
    monotonic: Monotonic,
    on_first_text: Callable[[float], None],
) -> APIRouter:
    """`model` describes the served model; `on_first_text` hears after how many seconds a client saw text."""
    router = APIRouter(tags=["chat"])

    @router.post(
        "/v1/chat/completions",
        responses={200: ANSWER_DOCUMENT, **error_documents(400, 401, 403, 404, 408, 413, 429, 500, 503, 504)},
        dependencies=[*access.documented, Depends(access.chat)],
        summary="Answer a chat",
    )
    async def create_chat_completion(
        request: Request, body: ChatBody, traceparent: Annotated[str, Header()] = ""
    ) -> Response:
        """OpenAI's chat API. Each choice carries a `thumbloop` object, whose `feedback_token` may rate the answer."""
        begin = monotonic()
        checked = parse_request(body, limits)
        async with AsyncExitStack() as held:
            await held.enter_async_context(service.slot())
            exchange = service.open(checked, caller=caller_of(request), traceparent=valid_traceparent(traceparent))
            try:
                if checked.stream:
                    response = await _streamed(request, service, exchange, held)
                else:
                    response = await _plain(request, service, exchange)
            except ClientGoneError:
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            on_first_text(monotonic() - begin)
            return response

    seen = [*access.documented, Depends(access.chat)]

    @router.get("/v1/models", summary="List models", dependencies=seen, responses=error_documents(401, 403, 429, 503))
    async def list_models() -> dict[str, Any]:
        """The one model that this installation serves, and the policy version that answers now."""
        return {"object": "list", "data": [model()]}

    @router.get(
        "/v1/models/{model_id:path}",
        summary="Show a model",
        dependencies=seen,
        responses=error_documents(401, 403, 404, 429, 503),
    )
    async def retrieve_model(model_id: str) -> dict[str, Any]:
        """One model by its name."""
        if model_id != limits.model_name:
            raise NotFound(
                f"The model {model_id[:64]!a} does not exist. GET /v1/models lists what does.",
                reason="MODEL_NOT_FOUND",
                field="model",
            )
        return model()

    return router


async def _plain(request: Request, service: ChatService, exchange: Exchange) -> Response:
    choices = await unless_gone(request, service.answer(exchange))
    return JSONResponse(ChatRenderer(service, exchange).plain(choices))


async def _streamed(request: Request, service: ChatService, exchange: Exchange, held: AsyncExitStack) -> Response:
    """Waits for the first event, so that what fails before it is answered with a status of its own."""
    events = await held.enter_async_context(aclosing(service.stream(exchange)))
    first = await unless_gone(request, anext(events))
    rendered = render_stream(
        first, events, ChatRenderer(service, exchange), include_usage=exchange.request.include_usage
    )
    return EventStream(rendered, held.pop_all(), timeout_s=service.timeout_s + SLOW_CLIENT_S)
