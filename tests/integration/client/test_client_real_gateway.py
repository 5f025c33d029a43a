"""Both Python clients against the real gateway on real ports.

Plan: chat plainly (n=2), by stream, from asyncio and from a thread; rate each answer twice under one id; ask where the
rating is; send a bad request, and rate with an altered token.
Pass: texts, tokens and spans are whole, a repeated thumb gives the same receipt, its state is told, errors are typed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.client import Answer, AnswerStarted, AsyncThumbloopClient, FeedbackReceipt, ThumbloopClient, gather
from services.shared.domain.errors import InvalidInput, Unauthenticated
from tests.support.gateway import GatewayHarness, running_gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayHarness]:
    async with running_gateway(tmp_path) as harness:
        yield harness


def is_whole(answer: Answer) -> bool:
    covered = [span.begin for span in answer.spans] == [0, *(span.end for span in answer.spans[:-1])]
    named = answer.text and answer.rollout_id and answer.feedback_token and answer.finish_reason
    return bool(named and answer.spans and covered and answer.spans[0].policy_version == answer.policy_version)


async def test_the_async_client(gateway: GatewayHarness) -> None:
    async with AsyncThumbloopClient(gateway.url) as client:
        plain = await client.chat_many("How do I keep a plant?", n=2, max_tokens=8)
        parts = [part async for part in client.stream("How do I keep a plant?", max_tokens=8)]
        streamed = gather(parts)
        assert len(plain) == 2
        assert isinstance(parts[0], AnswerStarted)
        assert all(is_whole(answer) for answer in (*plain, *streamed))
        assert len({answer.rollout_id for answer in (*plain, *streamed)}) == 3

        receipt = await client.thumb(plain[0].feedback_token, up=True, feedback_id="mine")
        assert (receipt.feedback_id, receipt.state) == ("mine", "accepted")
        assert await client.thumb(plain[0].feedback_token, up=True, feedback_id="mine") == receipt
        fate = await client.feedback_state("mine", plain[0].feedback_token)
        assert (fate.rollout_id, fate.kind, fate.revision) == (plain[0].rollout_id, "thumb", receipt.revision)


async def test_every_kind_is_taken(gateway: GatewayHarness) -> None:
    async with AsyncThumbloopClient(gateway.url) as client:
        best, other = await client.chat_many("How do I keep a plant?", n=2)
        token = best.feedback_token
        receipts = [
            await client.thumb(token, up=True),
            await client.rate(token, 4),
            await client.compare(token, other.feedback_token),
            await client.edit(token, "Water it when dry."),
            await client.comment(token, "Short."),
            await client.retract(token, "rating"),
        ]
        assert {receipt.state for receipt in receipts} == {"accepted"}
        kinds = [(await client.feedback_state(receipt.feedback_id, token)).kind for receipt in receipts]
        assert kinds == ["thumb", "rating", "comparison", "edit", "comment", "rating"]
        with pytest.raises(InvalidInput, match="same answer") as refused:
            await client.compare(token, token)
        assert refused.value.reason == "SELF_COMPARISON"


async def test_the_sync_client(gateway: GatewayHarness) -> None:
    def talk() -> tuple[Answer, Answer, FeedbackReceipt]:
        with ThumbloopClient(gateway.url) as client:
            answer = client.chat([{"role": "user", "content": "Hello"}], temperature=0.8, user="alice")
            [streamed] = gather(client.stream("Hello", conversation_id="c-1"))
            return answer, streamed, client.thumb(streamed.feedback_token, up=False)

    answer, streamed, receipt = await asyncio.to_thread(talk)
    assert is_whole(answer)
    assert is_whole(streamed)
    assert receipt.state == "accepted"
    assert receipt.revision > 0


async def test_refusals_are_typed_and_say_how_to_mend_the_input(gateway: GatewayHarness) -> None:
    async with AsyncThumbloopClient(gateway.url) as client:
        with pytest.raises(InvalidInput) as refused:
            await client.chat("Hello", temperature=9.0)
        assert refused.value.field == "temperature"
        with pytest.raises(InvalidInput):
            await client.chat([])
        with pytest.raises(Unauthenticated):
            await client.thumb("no.such.token", up=True)
        with pytest.raises(Unauthenticated):
            await client.feedback_state("mine", "no.such.token")
        unstored = await client.chat("Hello", store=False)
        assert unstored.feedback_token == ""
