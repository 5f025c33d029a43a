"""The short way answers what it did not foresee as the documented route does, and leaves the rest to that route."""

from __future__ import annotations

import time
from typing import Any, cast

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from services.gateway.feedback.accepting import FeedbackAcceptor
from services.gateway.feedback.short_way import ShortWay
from services.gateway.middleware import RequestMetrics
from services.shared.domain.errors import Unauthenticated
from services.shared.telemetry.metrics import Metrics

RIGHT = {"token": "t", "kind": "thumb", "value": "up"}


class Failing:
    """An acceptor that raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def accept(self, body: Any, *, traceparent: str) -> Any:
        raise self._error


async def documented(scope: Scope, receive: Receive, send: Send) -> None:
    """In place of the application: says what it was given."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    await PlainTextResponse(body, status_code=418)(scope, receive, send)


async def post(metrics: Metrics, error: Exception, **request: Any) -> httpx.Response:
    short = ShortWay(documented, acceptor=cast(FeedbackAcceptor, Failing(error)))
    app = RequestMetrics(short, metrics=metrics, monotonic=time.monotonic)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.post("/v1/feedback", **request)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(RuntimeError("secret detail"), 500, "internal"), (Unauthenticated("no", reason="NO"), 401, "no")],
)
async def test_every_failure_has_the_shape_and_is_counted(error: Exception, status: int, code: str) -> None:
    metrics = Metrics(room="gateway")
    answer = await post(metrics, error, json=RIGHT)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code and "secret" not in answer.text
    labels = {"route": "/v1/feedback", "status": str(status)}
    assert metrics.value("thumbloop_gateway_requests_total", **labels) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"kind": "thumb"}', b'{"token": "t", "kind": "thumb", "value": 1}', b"\xff", b"[" * 100_000],
)
async def test_a_wrong_body_comes_to_the_documented_route_untouched(content: bytes) -> None:
    json_type = {"Content-Type": "application/json"}
    answer = await post(Metrics(room="gateway"), RuntimeError(), content=content, headers=json_type)
    assert (answer.status_code, answer.content) == (418, content)


async def test_another_type_comes_to_the_documented_route() -> None:
    answer = await post(Metrics(room="gateway"), RuntimeError(), content=b"x", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.content) == (418, b"x")
