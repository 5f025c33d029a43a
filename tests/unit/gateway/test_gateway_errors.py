"""Every failure in OpenAI's shape, through the real application (in process, without a port)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Query

from services.gateway import errors
from services.gateway.app import public_app
from services.gateway.chat.body import ChatBody
from services.gateway.errors import error_body
from services.shared.domain.errors import Busy, InvalidInput, ThumbloopError, Unavailable
from services.shared.rpc.statuses import STATUSES
from services.shared.telemetry.metrics import Metrics

router = APIRouter()


@router.post("/chat")
async def chat(body: ChatBody, limit: Annotated[int, Query(ge=1)] = 1) -> str:
    if body.model == "broken":
        raise RuntimeError("secret detail")
    if body.model == "busy":
        raise Busy("full", retry_after=2.2)
    if body.model == "away":
        raise Unavailable("away")
    return "ok"


@router.delete("/users/{user:path}")
async def delete_user(user: str) -> str:
    raise RuntimeError("a defect")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = public_app(
        routers=[router],
        routes=[],
        metrics=Metrics(room="gateway"),
        monotonic=time.monotonic,
        max_body_bytes=2000,
        cors_origins=["https://app.example"],
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def check(answer: httpx.Response, status: int, param: str | None, code: str | None) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"} and set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, code), error
    return error


JSON = {"Content-Type": "application/json"}
GOOD = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}'


@pytest.mark.parametrize(
    ("content", "param", "code", "words"),
    [
        (b"{", None, "bad_json", "no JSON"),
        (b"", None, "bad_body", "JSON object"),
        (b"\xff\xfe", None, "bad_json", "no JSON"),
        (b"[1]", None, "bad_body", "JSON object"),
        (b"3", None, "bad_body", "JSON object"),
        (b"{}", "model", "missing", "'model' is missing"),
        (b'{"model": "m"}', "messages", "missing", "'messages' is missing"),
        (b'{"model": "m", "messages": [{"content": "x"}]}', "messages[0].role", "missing", "missing"),
        (b'{"model": "m", "messages": [], "temperature": 3}', "temperature", "invalid_input", "less than or equal"),
        (b'{"model": "m", "messages": [], "n": "2"}', "n", "invalid_input", "integer"),
        (b'{"model": 1, "messages": []}', "model", "invalid_input", "string"),
    ],
)
async def test_bad_bodies(client: httpx.AsyncClient, content: bytes, param: str | None, code: str, words: str) -> None:
    error = check(await client.post("/chat", content=content, headers=JSON), 400, param, code)
    assert error["type"] == "invalid_request_error" and words in error["message"]


async def test_a_body_of_another_type(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat", content=GOOD, headers={"Content-Type": "text/plain"})
    assert "Content-Type: application/json" in check(answer, 400, None, "bad_body")["message"]


async def test_a_bad_query(client: httpx.AsyncClient) -> None:
    check(await client.post("/chat?limit=0", content=GOOD, headers=JSON), 400, "limit", "invalid_input")


async def test_a_body_too_large_declared_or_not(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 1000

    check(await client.post("/chat", content=b" " * 2001, headers=JSON), 413, None, "body_too_large")
    check(await client.post("/chat", content=chunks(), headers=JSON), 413, None, "body_too_large")


async def test_no_such_route_and_no_such_method(client: httpx.AsyncClient) -> None:
    check(await client.get("/nowhere"), 404, None, "not_found")
    answer = await client.get("/chat")
    check(answer, 405, None, None)
    assert answer.headers["allow"] == "POST"


async def test_a_defect_tells_nothing_of_the_inside(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat", content=GOOD.replace(b'"m"', b'"broken"'), headers=JSON)
    assert check(answer, 500, None, "internal")["type"] == "server_error"
    assert "secret" not in answer.text


async def test_a_defect_is_logged_by_route_since_a_path_may_name_a_person(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, Any]] = []
    log = SimpleNamespace(error=lambda event, **values: logged.append({"event": event, **values}))
    monkeypatch.setattr(errors, "get_logger", lambda: log)
    check(await client.delete("/users/alice@example.com"), 500, None, "internal")
    (entry,) = logged
    assert (entry["event"], entry["method"], entry["path"]) == ("request_failed", "DELETE", "/users/{user:path}")
    assert "alice" not in repr(entry)


async def test_retry_after_is_whole_seconds(client: httpx.AsyncClient) -> None:
    busy = await client.post("/chat", content=GOOD.replace(b'"m"', b'"busy"'), headers=JSON)
    assert check(busy, 429, None, "busy")["type"] == "rate_limit_error"
    assert busy.headers["retry-after"] == "3"
    away = await client.post("/chat", content=GOOD.replace(b'"m"', b'"away"'), headers=JSON)
    check(away, 503, None, "unavailable")
    assert away.headers["retry-after"] == "1"


async def test_cors_by_configuration(client: httpx.AsyncClient) -> None:
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    allowed = await client.options("/chat", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    refused = await client.options("/chat", headers={**asked, "Origin": "https://other.example"})
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    ("content", "status"), [(GOOD, 200), (b"{", 400), (b" " * 2001, 413), (GOOD.replace(b'"m"', b'"busy"'), 429)]
)
async def test_a_page_of_another_origin_may_read_whatever_is_answered(
    client: httpx.AsyncClient, content: bytes, status: int
) -> None:
    answer = await client.post("/chat", content=content, headers={**JSON, "Origin": "https://app.example"})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["access-control-expose-headers"] == "Retry-After"


@pytest.mark.parametrize("kind", STATUSES)
def test_every_error_has_the_shape(kind: type[ThumbloopError]) -> None:
    error = error_body(kind("what to do", field="sampling.seed"))["error"]
    assert error["message"] == "what to do" and error["param"] == "seed"
    assert error["code"] == kind.reason.lower()


def test_a_generators_field_is_spelled_as_the_clients() -> None:
    assert error_body(InvalidInput("x", field="messages"))["error"]["param"] == "messages"
