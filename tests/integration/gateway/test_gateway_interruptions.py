"""Clients and generators that go away in the middle.

Plan: a generator that answers slowly, fails, or restarts, and clients that hang up. Pass: a client that leaves cancels
what is drawn for it; a generator that is away for a moment is never seen by a client who was shown nothing yet; what
was shown is never taken back; and what lasts is told with a status and `Retry-After`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from services.shared.domain.errors import Busy, DeadlineExceeded, InvalidInput, Unavailable
from tests.support.gateway import GatewayHarness, running_gateway, start_generator, until

ASK: Any = [{"role": "user", "content": "How do I keep a plant?"}]
SLOW = tuple(f"word{index} " for index in range(400))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_cancels_its_answer(gateway: GatewayHarness, stream: bool) -> None:
    gateway.generator.words, gateway.generator.token_interval_s = SLOW, 0.05
    request = asyncio.create_task(gateway.chat(stream=stream, max_tokens=400))
    await until(lambda: gateway.generator.running == 1, what="the answer to be drawn")
    request.cancel()
    await until(lambda: gateway.generator.running == 0, what="the answer to be cancelled")
    assert gateway.generator.cancelled == [gateway.generator.requests[0].rollout_id]


async def test_a_client_that_goes_away_mid_stream_cancels_all_choices(gateway: GatewayHarness) -> None:
    gateway.generator.words, gateway.generator.token_interval_s = SLOW, 0.02
    body = {"model": "thumbloop", "messages": ASK, "stream": True, "n": 2, "max_tokens": 400}
    async with gateway.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.aiter_lines()
        for _ in range(6):
            await anext(lines)
    await until(lambda: gateway.generator.running == 0, what="both answers to be cancelled")
    assert len(gateway.generator.cancelled) == 2
    await until(lambda: _running_gauge(gateway, 0), what="the slot to be free again")


async def _running_gauge(gateway: GatewayHarness, value: int) -> bool:
    async with httpx.AsyncClient() as http:
        metrics = (await http.get(f"{gateway.control_url}/metrics")).text
    return f"thumbloop_gateway_running_requests {float(value)}" in metrics


@pytest.mark.parametrize("stream", [False, True])
async def test_a_moment_without_generator_is_not_seen(gateway: GatewayHarness, stream: bool) -> None:
    gateway.generator.failures = [Unavailable("starting"), Unavailable("starting")]
    answer = await gateway.chat(stream=stream)
    assert answer.status_code == 200
    assert "dry" in answer.text
    ids = [request.rollout_id for request in gateway.generator.requests]
    assert len(set(ids)) == 3, "an id that may have left a rollout is never used again"
    assert ids[-1] in answer.text and ids[0] not in answer.text.replace(f"chatcmpl-{ids[0]}", "")


async def test_a_generator_that_restarts_under_plain_answers(gateway: GatewayHarness) -> None:
    gateway.generator.words, gateway.generator.token_interval_s = SLOW[:40], 0.02
    asked = [asyncio.create_task(gateway.chat()) for _ in range(4)]
    await until(lambda: gateway.generator.running == 4, what="four answers to be drawn")
    await gateway.generator_server.stop(None)
    gateway.generator_server, _ = await start_generator(gateway.generator, gateway.generator_port)
    answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [200] * 4
    for answer in answers:
        assert answer.json()["choices"][0]["message"]["content"] == "".join(SLOW[:40])
    await gateway.generator_server.stop(None)


async def test_what_was_shown_ends_with_an_error_the_client_raises(gateway: GatewayHarness) -> None:
    gateway.generator.fail_after_words = 2
    text = ""
    with pytest.raises(openai.APIError, match="away"):
        async for chunk in await gateway.openai.chat.completions.create(model="thumbloop", messages=ASK, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text == "Water it "
    assert len(gateway.generator.requests) == 1


async def test_a_generator_that_stays_away_is_a_503(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.wiring.RETRY_WINDOW_S", 0.5)
    async with running_gateway(tmp_path) as gateway:
        await gateway.generator_server.stop(None)
        answer = await gateway.chat()
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "generator_unavailable"
        assert "127.0.0.1" not in answer.text
        ready = await gateway.http.get("/readyz")
        assert ready.status_code == 503 and "generator" in ready.text
        assert (await gateway.http.get("/healthz")).status_code == 200


async def test_a_full_generator_is_a_429(gateway: GatewayHarness) -> None:
    gateway.generator.failures = [Busy("the queue is full", retry_after=3.0)]
    with pytest.raises(openai.RateLimitError) as caught:
        await gateway.openai.chat.completions.create(model="thumbloop", messages=ASK)
    assert caught.value.response.headers["retry-after"] == "3"


async def test_what_the_generator_refuses_names_the_parameter(gateway: GatewayHarness) -> None:
    gateway.generator.failures = [InvalidInput("this engine knows no seed; leave it out", field="sampling.seed")]
    answer = await gateway.chat(seed=7)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "seed"


async def test_a_deadline_is_a_504(gateway: GatewayHarness, tmp_path: Any) -> None:
    gateway.generator.failures = [DeadlineExceeded("too late")]
    assert (await gateway.chat()).status_code == 504
    async with running_gateway(tmp_path / "hasty", request_timeout_s=0.3) as hasty:
        hasty.generator.words, hasty.generator.token_interval_s = SLOW, 0.05
        assert (await hasty.chat(max_tokens=400)).status_code == 504
        await until(lambda: hasty.generator.running == 0, what="the answer to be cancelled")


async def test_sigterm_ends_running_feedback_too(tmp_path: Any) -> None:
    async with running_gateway(tmp_path) as gateway:
        token = (await gateway.choice())["feedback_token"]
        gateway.bus.delay_s = 1.0
        sent = asyncio.create_task(gateway.thumb(token, "up"))
        await until(lambda: gateway.bus.asked > 0, what="the log to be asked")
        gateway.stop.set()
        assert (await sent).status_code == 200
        await asyncio.wait_for(gateway.served, 30)


async def test_too_many_requests_are_told_to_come_again(tmp_path: Any) -> None:
    async with running_gateway(tmp_path, max_running=2) as gateway:
        gateway.generator.hold_after_words = 1
        running = [asyncio.create_task(gateway.chat()) for _ in range(2)]
        await until(lambda: gateway.generator.running == 2, what="two answers to be drawn")
        refused = await gateway.chat()
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        gateway.generator.go_on.set()
        assert [(await task).status_code for task in running] == [200, 200]
        assert (await gateway.chat()).status_code == 200


async def test_sigterm_ends_running_answers_first(tmp_path: Any) -> None:
    async with running_gateway(tmp_path) as gateway:
        gateway.generator.words, gateway.generator.token_interval_s = SLOW[:40], 0.02
        body = {"model": "thumbloop", "messages": ASK, "stream": True}
        async with gateway.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.aiter_lines()
            await anext(lines)
            gateway.stop.set()
            received = [line async for line in lines]
        assert received[-2] == "data: [DONE]" or received[-1] == "data: [DONE]"
        last = json.loads([line for line in received if line.startswith("data: {")][-1].removeprefix("data: "))
        assert last["choices"][0]["finish_reason"] == "stop"
        await asyncio.wait_for(gateway.served, 30)
        assert gateway.bus.closed
        with pytest.raises(httpx.TransportError):
            await httpx.AsyncClient().get(f"{gateway.url}/healthz")
