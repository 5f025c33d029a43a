"""How answers end before their time, and what is refused.

Plan: clients that cancel, run into their deadline, ask for what cannot be, or come when the queue is full.
Pass: cancelled and late answers leave a rollout that says so, with the tokens so far; refusals carry code, field and a
time to come again; nothing of it disturbs the next answer.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs
from thumbloop.generator.v1 import generator_pb2, rollout_pb2
from thumbloop.shared.v1 import meta_pb2

from services.generator import session
from services.shared.bus.interface import Bus
from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import FinishReason, Rollout
from services.shared.rpc import error_from_rpc
from tests.support.generator_room import GeneratorHarness, generate_request, generator_room, until


async def _refusal(generator: GeneratorHarness, request: generator_pb2.GenerateRequest) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await generator.answer(request)
    return refused.value


def _turn(role: meta_pb2.Role.ValueType, content: str) -> meta_pb2.ChatMessage:
    return meta_pb2.ChatMessage(role=role, content=content)


async def test_a_client_that_cancels_leaves_a_cancelled_rollout(any_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(any_bus, tmp_path, interval_s=0.02) as generator:
        request = generate_request(max_tokens=1000, seed=None)
        request.sampling.top_k = 1  # the scripted language's likeliest words do not end
        call = generator.stub.Generate(request)
        async for part in call:
            if part.WhichOneof("part") == "delta" and part.delta.response_tokens >= 3:
                break
        call.cancel()
        rollout = (await generator.rollouts(1))[request.rollout_id]
        assert rollout.finish_reason is FinishReason.CANCELLED
        assert 3 <= len(rollout.response_token_ids) < 1000
        assert generator.room.admission.running == 0
        await generator.answer(generate_request())


async def test_a_waiting_request_that_is_cancelled_leaves_an_empty_rollout(memory_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path, max_running=1, interval_s=0.02) as generator:
        first = asyncio.create_task(generator.answer(generate_request(max_tokens=50, seed=3)))
        await until(lambda: generator.room.admission.running == 1)
        request = generate_request()
        call = generator.stub.Generate(request)
        waiting = asyncio.create_task(call.read())
        await until(lambda: generator.room.admission.waiting == 1)
        call.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        rollout = (await generator.rollouts(1))[request.rollout_id]
        assert (rollout.finish_reason, rollout.response_token_ids, rollout.spans) == (FinishReason.CANCELLED, (), ())
        await first


async def test_a_deadline_leaves_a_rollout_that_says_so(any_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(any_bus, tmp_path, interval_s=0.05) as generator:
        await generator.answer(generate_request(max_tokens=1, unrecorded=True))  # the channel is up
        request = generate_request(max_tokens=1000, seed=None)
        request.sampling.top_k = 1
        parts = []
        try:
            async for part in generator.stub.Generate(request, timeout=3.0):
                parts.append(part)
        except grpc.aio.AioRpcError as late:
            assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:  # the end came just before the client's own clock
            assert parts[-1].finished.finish_reason == rollout_pb2.FINISH_REASON_DEADLINE
        rollout = (await generator.rollouts(1))[request.rollout_id]
        assert rollout.finish_reason is FinishReason.DEADLINE
        assert 1 <= len(rollout.response_token_ids) < 1000


async def test_a_full_queue_says_when_to_come_again(memory_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path, max_running=1, interval_s=0.02, max_waiting=1) as generator:
        accepted = [asyncio.create_task(generator.answer(generate_request(max_tokens=30))) for _ in range(2)]
        await until(lambda: generator.room.admission.running + generator.room.admission.waiting == 2)
        error = await _refusal(generator, generate_request())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (error_from_rpc(error).retry_after or 0) > 0
        await asyncio.gather(*accepted)


async def test_bad_requests_are_refused_by_field(memory_bus: Bus, tmp_path: Path) -> None:
    user = _turn(meta_pb2.ROLE_USER, "Hi")
    bad: list[tuple[dict[str, Any], str]] = [
        ({"messages": []}, "messages"),
        ({"messages": [_turn(meta_pb2.ROLE_USER, "  ")]}, "messages[0].content"),
        ({"messages": [user, _turn(meta_pb2.ROLE_ASSISTANT, "Hello")]}, "messages[1].role"),
        ({"messages": [user, _turn(meta_pb2.ROLE_SYSTEM, "Be brief"), user]}, "messages[1].role"),
        ({"messages": [_turn(meta_pb2.ROLE_UNSPECIFIED, "Hi")]}, "messages.role"),
        ({"messages": [_turn(meta_pb2.ROLE_USER, "x" * 5000)]}, "messages"),
        ({"rollout_id": "mine"}, "rollout_id"),
        ({"rollout_id": "019AB000-0000-7000-8000-00000000000A"}, "rollout_id"),
        ({"tenant": ""}, "tenant"),
        *(
            ({field: "x" * 257}, field)
            for field in ("tenant", "conversation_id", "prompt_id", "group_id", "rater_id", "canary_id", "traceparent")
        ),
        ({"purpose": rollout_pb2.PURPOSE_UNSPECIFIED}, "purpose"),
        ({"sampling": None}, "sampling"),
        ({"sampling": meta_pb2.SamplingParameters(temperature=3, top_p=1, max_tokens=5)}, "sampling.temperature"),
        ({"sampling": meta_pb2.SamplingParameters(temperature=1, top_p=0, max_tokens=5)}, "sampling.top_p"),
        ({"sampling": meta_pb2.SamplingParameters(temperature=1, top_p=1)}, "sampling.max_tokens"),
        ({"sampling": meta_pb2.SamplingParameters(temperature=1, top_p=1, max_tokens=99999)}, "sampling.max_tokens"),
    ]
    async with generator_room(memory_bus, tmp_path) as generator:
        for changes, field in bad:
            error = await _refusal(generator, generate_request(**changes))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, changes
            assert error_from_rpc(error).field == field, changes
        await generator.answer(generate_request())


async def test_a_version_that_is_not_resident_is_refused(memory_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path) as generator:
        await generator.answer(generate_request(required_version=generator.versions[0]))
        error = await _refusal(generator, generate_request(required_version="p-0001-000009-00000000"))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_nothing_is_answered_before_a_version_is_live(memory_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path, live=False) as generator:
        error = await _refusal(generator, generate_request())
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_draining_answers_and_records_what_was_accepted(memory_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path, interval_s=0.01) as generator:
        requests = [generate_request(max_tokens=30, seed=index) for index in range(10)]
        answers = [asyncio.create_task(generator.answer(request)) for request in requests]
        await until(lambda: generator.room.admission.running == 10)
        await generator.drain(20.0)
        assert len(await asyncio.gather(*answers)) == 10
        assert len(await generator.rollouts(10)) == 10


async def test_a_rollout_that_cannot_be_recorded_is_told_and_logged(
    memory_bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no check of the request foresaw."""

    def refuse(rollout: Rollout) -> bytes:
        raise InvalidInput("not like this", reason="UNFORESEEN")

    monkeypatch.setattr(session, "encode_rollout", refuse)
    async with generator_room(memory_bus, tmp_path) as generator:
        request = generate_request()
        with capture_logs() as lines:
            error = await _refusal(generator, request)
    assert error_from_rpc(error).reason == "UNFORESEEN"
    told = [line for line in lines if line["event"] == "rollout_not_recorded"]
    assert [(line["rollout_id"], line["reason"]) for line in told] == [(request.rollout_id, "UNFORESEEN")]
