"""The short way of `POST /v1/feedback`: what a right request needs, and nothing else.

FastAPI's way to a route (matching, dependencies, exit stacks, response models) takes longer than all that makes
feedback durable. So a request that is plainly right (JSON that holds for its kind) is answered here, ahead of it; the
route stays, documents the operation, and answers everything else: a wrong body comes to it untouched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.errors import error_response, unexpected_response
from services.gateway.feedback.accepting import FeedbackAcceptor
from services.gateway.feedback.body import AnyStatement, FeedbackRequestBody
from services.gateway.feedback.recent import Acknowledged
from services.shared.domain.errors import ThumbloopError

PATH = "/v1/feedback"
_JSON = (b"application/json", b"application/json; charset=utf-8")
_json = json.JSONEncoder(separators=(",", ":")).encode
_statements: TypeAdapter[AnyStatement] = TypeAdapter(FeedbackRequestBody)


@dataclass(frozen=True)
class _Route:
    """How metrics name it: as the documented route."""

    path: str = PATH


class ShortWay:
    """Stands around the application, inside of the bounds and metrics that hold for every request."""

    def __init__(self, app: ASGIApp, *, acceptor: FeedbackAcceptor) -> None:
        self._app = app
        self._acceptor = acceptor
        self._route = _Route()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or passes on."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        messages = await _whole_request(receive) if headers.get(b"content-type") in _JSON else []
        statement = _right_statement(messages)
        if statement is None:
            await self._app(scope, _Replay(messages, receive), send)
            return
        scope["route"] = self._route
        try:
            traceparent = headers.get(b"traceparent", b"").decode("latin-1")
            acknowledged = await self._acceptor.accept(statement, traceparent=traceparent)
        except ThumbloopError as error:
            await error_response(error)(scope, receive, send)
            return
        except Exception as error:  # as the application answers what it did not foresee
            await unexpected_response(error, method="POST", path=PATH)(scope, receive, send)
            return
        await _answer(acknowledged, send)


class _Replay:
    """Gives what was read again, then what comes."""

    def __init__(self, messages: list[Message], receive: Receive) -> None:
        self._messages = iter(messages)
        self._receive = receive

    async def __call__(self) -> Message:
        message = next(self._messages, None)
        return await self._receive() if message is None else message


async def _whole_request(receive: Receive) -> list[Message]:
    """Until the body's end, or the client's. Whoever gives the messages bounds their size and the time they take."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _right_statement(messages: list[Message]) -> AnyStatement | None:
    """None: there is something wrong, which the documented route says better."""
    if not messages or messages[-1]["type"] != "http.request":
        return None
    body = b"".join(message.get("body", b"") for message in messages)
    try:
        return _statements.validate_json(body)
    except ValueError:
        return None


async def _answer(acknowledged: Acknowledged, send: Send) -> None:
    told: dict[str, Any] = {
        "feedback_id": acknowledged.feedback_id,
        "state": str(acknowledged.state),
        "revision": acknowledged.revision,
    }
    body = _json(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
