"""Streams over real gRPC: one answer and many at once.

Plan: a scripted room on a free port, on the in-memory bus and on a real broker; ask, read the stream, read the topic.
Pass: the stream is start, deltas, finish; the rollout in the topic says the same, and each of many has exactly one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from thumbloop.generator.v1 import generator_pb2, rollout_pb2

from services.generator.engines.scripted_language import TOKENS, ScriptedTokenizer, log_probs_V
from services.shared.bus.interface import Bus
from services.shared.domain.rollout import FinishReason, KvHistory
from tests.support.generator_room import generate_request, generator_room, until


async def test_an_answer_and_its_rollout_say_the_same(any_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(any_bus, tmp_path) as generator:
        request = generate_request(max_tokens=30)
        answer = await generator.answer(request)
        assert answer.started.rollout_id == request.rollout_id
        assert answer.started.policy_version == generator.versions[0]
        # Kafka has it before the stream's end: it can be read at once.
        rollout = (await generator.rollouts(1))[request.rollout_id]
    assert rollout.response_token_ids == tuple(answer.finished.response_token_ids)
    assert rollout.behaviour_log_probs == tuple(answer.finished.behaviour_log_probs)
    assert rollout.response_text == answer.text == ScriptedTokenizer().decode(rollout.response_token_ids)
    assert rollout.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert len(rollout.prompt_token_ids) == answer.started.prompt_tokens
    assert [span.kv_history for span in rollout.spans] == [KvHistory.FRESH]
    assert (rollout.rater_id, rollout.prompt_id, rollout.group_id) == ("rater", "prompt", request.rollout_id)
    assert rollout.first_token_time is not None
    assert rollout.request_time <= rollout.first_token_time <= rollout.end_time
    before = rollout.prompt_token_ids[-1]
    for token, said in zip(rollout.response_token_ids, rollout.behaviour_log_probs, strict=True):
        true = log_probs_V(generator.versions[0], before, 1.0, 0, 1.0)[TOKENS.index(token)]
        assert abs(true - said) < 1e-5
        before = token


async def test_many_at_once_each_leave_one_rollout(any_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(any_bus, tmp_path, max_running=8) as generator:
        requests = [generate_request(f"Question {index}?", seed=index) for index in range(40)]
        answers = await asyncio.gather(*map(generator.answer, requests))
        rollouts = await generator.rollouts(40)
        assert rollouts.keys() == {request.rollout_id for request in requests}
        for answer in answers:
            assert rollouts[answer.started.rollout_id].response_text == answer.text


async def test_an_unrecorded_answer_leaves_none(memory_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path) as generator:
        await generator.answer(generate_request(unrecorded=True))
        kept = generate_request()
        await generator.answer(kept)
        assert list(await generator.rollouts(1)) == [kept.rollout_id]


async def test_a_stop_string_ends_the_answer_before_it(memory_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path) as generator:
        whole = await generator.answer(generate_request(max_tokens=30))
        stop = whole.text[10:14]
        request = generate_request(max_tokens=30)
        request.sampling.stop.append(stop)
        answer = await generator.answer(request)
        assert answer.text == whole.text[: whole.text.index(stop)]
        assert answer.finished.finish_reason == rollout_pb2.FINISH_REASON_STOP
        assert len(answer.finished.response_token_ids) < len(whole.finished.response_token_ids)
        assert (await generator.rollouts(2))[request.rollout_id].response_text == answer.text


async def test_status_and_readiness_follow_the_first_version(memory_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path, live=False) as generator:
        assert not await generator.serving()
        status = await generator.stub.GetStatus(generator_pb2.GetStatusRequest())
        assert status.live_version == "" and status.capabilities.engine == "scripted"
        version = await generator.release()
        await until(lambda: generator.room.follower.caught_up, what="caught up")
        for _ in range(200):
            if await generator.serving():
                break
            await asyncio.sleep(0.02)
        assert await generator.serving()
        status = await generator.stub.GetStatus(generator_pb2.GetStatusRequest())
        assert (status.live_version, status.epoch, status.sequence) == (version, 1, 1)
