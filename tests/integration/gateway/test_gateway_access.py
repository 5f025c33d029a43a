"""API keys at the gateway's doors.

Plan: a gateway that lets nobody chat without a key, between a learner that has a few keys and a generator; callers of
all kinds knock at the public port and at the control port; keys are revoked, the learner goes away, the gateway
restarts, its copy of the keys is damaged.
Pass: each caller gets what its key allows and nothing else, 401 and 403 say why in OpenAI's shape; a revoked key is
refused within the interval; with the learner away the keys are known from disk, and a damaged disk lets nobody in.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.learner.v1 import learner_pb2

from services.client import AsyncThumbloopClient
from services.shared.access import LiveKey, NewKey, Scope, mint_key
from services.shared.domain.errors import Unauthenticated
from services.shared.ids import utc_now
from tests.support.access import credential_of, live_key, without
from tests.support.gateway import GatewayHarness, running_gateway, until

QUESTION = {"model": "thumbloop", "messages": [{"role": "user", "content": "Hi"}], "user": "alice"}
CONTROL_PATHS = ("/v1/releases", "/v1/releases/events", "/openapi.json", "/docs", "/", "/nothing/here")


@dataclass
class Keys:
    """One key of each sort, as their holders have them."""

    known: list[LiveKey] = field(default_factory=list)

    def make(self, *scopes: Scope, **facts: Any) -> NewKey:
        minted, key = live_key(*scopes, **facts)
        self.known.append(key)
        return minted


@pytest.fixture
def keys() -> Iterator[Keys]:
    yield Keys()


def closed(folder: Path, keys: Keys | None, **access: Any) -> Any:
    """A gateway where keys are needed; `keys` None: the learner does not answer."""
    known = None if keys is None else keys.known
    return running_gateway(folder, access={"anonymous_chat": False, **access}, keys=known)


@asynccontextmanager
async def knowing(folder: Path, keys: Keys, first: NewKey, **access: Any) -> AsyncIterator[GatewayHarness]:
    """The same, once it has the learner's keys."""
    async with closed(folder, keys, **access) as gateway:

        async def known() -> bool:
            answer = await gateway.http.get("/v1/models", headers=bearer(first))
            return bool(answer.status_code == 200)

        await until(known, what="the gateway to know the keys")
        yield gateway


def bearer(key: NewKey | str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key.text}"}


async def ask(gateway: GatewayHarness, key: NewKey | str | None, **extra: Any) -> httpx.Response:
    headers = {} if key is None else bearer(key)
    return await gateway.http.post("/v1/chat/completions", json={**QUESTION, **extra}, headers=headers)


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error object of an answer that must be this refusal."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code and error["message"]
    assert error["type"] == {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}[status]
    return error


async def test_each_caller_gets_what_its_key_allows(tmp_path: Path, keys: Keys) -> None:
    chat, score = keys.make(Scope.CHAT), keys.make(Scope.SCORE)
    expired = keys.make(Scope.CHAT, expire_time=utc_now() - timedelta(seconds=1))
    async with knowing(tmp_path, keys, chat) as gateway:
        assert (await ask(gateway, chat)).status_code == 200
        missing = await ask(gateway, None)
        assert missing.headers["WWW-Authenticate"] == 'Bearer realm="thumbloop"'
        assert "thumbloop keys create" in refused(missing, 401, "api_key_missing")["message"]
        unknown = await ask(gateway, mint_key())
        assert 'error="invalid_token"' in unknown.headers["WWW-Authenticate"]
        refused(unknown, 401, "api_key_unknown")
        refused(await ask(gateway, chat.text[:-1] + "x"), 401, "api_key_malformed")
        refused(await ask(gateway, "none"), 401, "api_key_malformed")
        assert "expired at" in refused(await ask(gateway, expired), 401, "api_key_expired")["message"]
        assert "needs chat" in refused(await ask(gateway, score), 403, "wrong_scope")["message"]
        asked = len(gateway.generator.requests)
        for path in ("/v1/models", "/v1/models/thumbloop", "/v1/releases", "/v1/releases/events"):
            refused(await gateway.http.get(path), 401, "api_key_missing")
        for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json", "/web/app.js"):
            assert (await gateway.http.get(path)).status_code == 200, path
        assert asked == 1, "nobody else's question reached the generator"


async def test_the_openai_client_needs_no_change(tmp_path: Path, keys: Keys) -> None:
    chat = keys.make(Scope.CHAT)
    async with knowing(tmp_path, keys, chat) as gateway:
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=chat.text, max_retries=0)
        answer = await client.chat.completions.create(
            model="thumbloop", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
        assert answer.choices[0].message.content
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as stranger:
            with pytest.raises(openai.AuthenticationError, match="no API key"):
                await stranger.models.list()
        await client.close()


async def test_our_own_client_takes_a_key_and_rates_with_it_or_without(tmp_path: Path, keys: Keys) -> None:
    chat = keys.make(Scope.CHAT)
    async with (
        knowing(tmp_path, keys, chat) as gateway,
        AsyncThumbloopClient(gateway.url, api_key=chat.text) as client,
        AsyncThumbloopClient(gateway.url) as browser,
    ):
        answer = await client.chat("Hi")
        for rater in (client, browser):
            receipt = await rater.thumb(answer.feedback_token, up=True)
            assert (await rater.feedback_state(receipt.feedback_id, answer.feedback_token)).kind == "thumb"
        with pytest.raises(Unauthenticated, match="An API key is needed"):
            await browser.chat("Hi")


async def test_a_keys_tenant_owns_what_it_asks(tmp_path: Path, keys: Keys) -> None:
    """Rollouts, ids and tokens are the tenant's; the same user and words of two keys or tenants share nothing."""
    one, same_tenant = keys.make(Scope.CHAT, tenant="acme"), keys.make(Scope.CHAT, tenant="acme")
    other = keys.make(Scope.CHAT, tenant="umbrella")
    async with knowing(tmp_path, keys, one) as gateway:
        answers = [(await ask(gateway, key)).json()["choices"][0]["thumbloop"] for key in (one, same_tenant, other)]
        asked = gateway.generator.requests
        assert [request.tenant for request in asked] == ["acme", "acme", "umbrella"]
        assert asked[0].prompt_id == asked[1].prompt_id != asked[2].prompt_id
        assert asked[0].rater_id == asked[1].rater_id != asked[2].rater_id
        assert len({request.conversation_id for request in asked}) == 3
        for answer in answers:
            assert (await gateway.thumb(answer["feedback_token"])).status_code == 200, "a browser rates without a key"
        assert [feedback.meta.tenant for feedback in gateway.bus.feedback] == ["acme", "acme", "umbrella"]


async def test_a_key_may_read_where_its_tenants_feedback_is(tmp_path: Path, keys: Keys) -> None:
    chat, reader = keys.make(Scope.CHAT), keys.make(Scope.FEEDBACK)
    admin = keys.make(Scope.ADMIN)
    async with knowing(tmp_path, keys, chat) as gateway:
        gateway.learner.feedback["f1"] = learner_pb2.GetFeedbackResponse(
            feedback_id="f1",
            state=learner_pb2.FEEDBACK_STATE_JOINED,
            rollout_id="r1",
            rater_id="someone",
            kind=feedback_pb2.FEEDBACK_KIND_THUMB,
            revision=1,
        )
        for key in (reader, admin):
            found = await gateway.http.get("/v1/feedback/f1", headers=bearer(key))
            assert found.status_code == 200 and found.json()["state"] == "joined"
        refused(await gateway.http.get("/v1/feedback/f1", headers=bearer(chat)), 403, "wrong_scope")
        refused(await gateway.http.get("/v1/feedback/f1", headers=bearer(mint_key())), 401, "api_key_unknown")
        refused(await gateway.http.get("/v1/feedback/f1"), 401, "feedback_token_missing")
        as_key = {"authorization": "Bearer aaa.bbb.ccc"}
        refused(await gateway.http.get("/v1/feedback/f1", headers=as_key), 401, "feedback_token_as_key")


async def test_a_key_over_its_limit_is_told_when_to_come_again(tmp_path: Path, keys: Keys) -> None:
    chat, other = keys.make(Scope.CHAT), keys.make(Scope.CHAT)
    async with knowing(tmp_path, keys, chat, key_requests_per_s=0.01, key_burst=3) as gateway:  # one to be known
        assert [(await ask(gateway, chat)).status_code for _ in range(2)] == [200, 200]
        over = await ask(gateway, chat)
        refused(over, 429, "rate_limited")
        assert 1 <= int(over.headers["Retry-After"]) <= 100
        assert (await ask(gateway, other)).status_code == 200, "another key has its own limit"
        for path in ("/v1/models", "/v1/models/thumbloop", "/v1/releases", "/v1/releases/events"):
            refused(await gateway.http.get(path, headers=bearer(chat)), 429, "rate_limited")


async def test_who_asks_where_feedback_is_has_a_limit_too(tmp_path: Path, keys: Keys) -> None:
    """A key its own; who holds a token, the rater's, whichever of the rater's tokens it is."""
    chat, reader, other = keys.make(Scope.CHAT), keys.make(Scope.FEEDBACK), keys.make(Scope.FEEDBACK)
    limits = {"key_requests_per_s": 0.01, "key_burst": 4, "rater_reads_per_s": 0.01, "rater_read_burst": 2}
    async with knowing(tmp_path, keys, chat, **limits) as gateway:
        for _ in range(4):
            assert (await gateway.http.get("/v1/feedback/f", headers=bearer(reader))).status_code == 404
        over = await gateway.http.get("/v1/feedback/f", headers=bearer(reader))
        refused(over, 429, "rate_limited")
        assert 1 <= int(over.headers["Retry-After"]) <= 100
        assert (await gateway.http.get("/v1/feedback/f", headers=bearer(other))).status_code == 404
        answers = [(await ask(gateway, chat)).json()["choices"][0]["thumbloop"] for _ in range(2)]
        tokens = [{"Authorization": f"Feedback {answer['feedback_token']}"} for answer in answers]
        for token in tokens:
            assert (await gateway.http.get("/v1/feedback/f", headers=token)).status_code == 404
        for token in tokens:
            refused(await gateway.http.get("/v1/feedback/f", headers=token), 429, "rate_limited")


async def test_a_revoked_key_is_refused_within_the_interval(tmp_path: Path, keys: Keys) -> None:
    chat, kept = keys.make(Scope.CHAT), keys.make(Scope.CHAT)
    async with knowing(tmp_path, keys, chat) as gateway:
        gateway.learner.keys = without(keys.known, chat.key_id)

        async def gone() -> bool:
            return (await ask(gateway, chat)).status_code == 401

        await until(gone, what="the revoked key to be refused")
        assert "revoked" in refused(await ask(gateway, chat), 401, "api_key_unknown")["message"]
        assert (await ask(gateway, kept)).status_code == 200


async def test_keys_outlive_a_restart_while_the_learner_is_away(tmp_path: Path, keys: Keys) -> None:
    chat = keys.make(Scope.CHAT)

    def copies() -> list[Path]:
        return [path for path in (tmp_path / "access").iterdir() if path.suffix == ".json"]

    async with knowing(tmp_path, keys, chat):
        await until(copies, what="the copy on disk")
    (copy,) = copies()
    assert chat.text not in copy.read_text() and json.loads(copy.read_text())["keys"][0]["key_id"] == chat.key_id
    async with closed(tmp_path, None) as gateway:
        assert (await ask(gateway, chat)).status_code == 200
        refused(await ask(gateway, mint_key()), 401, "api_key_unknown")
    copy.write_bytes(copy.read_bytes()[:-20])
    async with closed(tmp_path, None) as gateway:
        denied = await ask(gateway, chat)
        assert (denied.status_code, denied.json()["error"]["code"]) == (503, "api_keys_unknown")
        assert int(denied.headers["Retry-After"]) >= 1


async def test_with_anonymous_chat_a_key_that_is_presented_is_checked(tmp_path: Path, keys: Keys) -> None:
    chat, score = keys.make(Scope.CHAT, tenant="acme"), keys.make(Scope.SCORE)
    async with knowing(tmp_path, keys, chat, anonymous_chat=True) as gateway:
        for nobody in (None, "none", "sk-other"):
            assert (await ask(gateway, nobody)).status_code == 200
        assert (await ask(gateway, chat)).status_code == 200
        assert [request.tenant for request in gateway.generator.requests] == ["default"] * 3 + ["acme"]
        refused(await ask(gateway, mint_key()), 401, "api_key_unknown")
        refused(await ask(gateway, score), 403, "wrong_scope")


async def test_the_control_port_is_closed_but_for_probes(tmp_path: Path, keys: Keys) -> None:
    chat, admin = keys.make(Scope.CHAT), keys.make(Scope.ADMIN)
    async with knowing(tmp_path, keys, chat) as gateway, httpx.AsyncClient(base_url=gateway.control_url) as control:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await control.get(path)).status_code == 200, path
        for path in CONTROL_PATHS:
            refused(await control.get(path), 401, "api_key_missing")
            refused(await control.get(path, headers=bearer(chat)), 403, "wrong_scope")
        refused(await control.post("/metrics/", json={}), 401, "api_key_missing")
        refused(await control.delete("/v1/users/alice"), 401, "api_key_missing")
        room = {"Authorization": credential_of(tmp_path).authorization()}
        stranger = {"Authorization": credential_of(tmp_path / "other").authorization()}
        refused(await control.delete("/v1/users/x?tenant=other", headers=bearer(admin)), 403, "wrong_tenant")
        for allowed in (bearer(admin), room):
            assert (await control.get("/v1/releases", headers=allowed)).status_code == 200
            assert (await control.get("/nothing/here", headers=allowed)).status_code == 404
        refused(await control.get("/v1/releases", headers=stranger), 401, "service_key_unknown")
        refused(await gateway.http.get("/v1/models", headers=room), 401, "api_key_malformed")


async def test_the_description_says_that_a_key_is_needed(tmp_path: Path, keys: Keys) -> None:
    chat = keys.make(Scope.CHAT)
    async with knowing(tmp_path, keys, chat) as gateway:
        described = (await gateway.http.get("/openapi.json")).json()
    assert described["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    for path, method in (("/v1/chat/completions", "post"), ("/v1/models", "get"), ("/v1/releases", "get")):
        operation = described["paths"][path][method]
        assert operation["security"] == [{"ApiKey": []}]
        assert {"401", "403"} <= operation["responses"].keys()
    assert "security" not in described["paths"]["/v1/feedback"]["post"], "the token in the body is enough"
