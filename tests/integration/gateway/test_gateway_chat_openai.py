"""The unmodified `openai` client chats.

Plan: a real gateway on a port, a generator that answers four words. The client asks plainly, as a stream, and for two
answers. Pass: texts, reasons, usage and the `thumbloop` object of each choice are as the API promises.
"""

from __future__ import annotations

from typing import Any

from tests.support.gateway import NEXT_VERSION, VERSION, GatewayHarness

ASK: Any = [{"role": "user", "content": "How do I keep a plant?"}]


async def test_plain(gateway: GatewayHarness) -> None:
    answer = await gateway.openai.chat.completions.create(model="thumbloop", messages=ASK, user="alice", max_tokens=9)
    choice = answer.choices[0]
    assert choice.message.content == "Water it when dry."
    assert choice.finish_reason == "stop"
    assert answer.system_fingerprint == VERSION
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 4, 11)
    loop: Any = choice.model_dump()["thumbloop"]
    sent = gateway.generator.requests[0]
    assert loop["rollout_id"] == sent.rollout_id == sent.group_id
    assert loop["conversation_id"] == sent.conversation_id
    assert loop["prompt_id"] == sent.prompt_id
    assert loop["policy_version"] == VERSION
    assert loop["kinds"] == ["thumb", "rating", "comparison", "edit", "comment"]
    assert loop["spans"] == [{"policy_version": VERSION, "begin": 0, "end": 4, "kv_history": "fresh"}]
    assert loop["feedback_token"].count(".") == 2
    assert sent.rater_id and "alice" not in sent.rater_id
    assert sent.sampling.max_tokens == 9 and not sent.unrecorded
    assert 100 < gateway.generator.deadlines_s[0] < 125  # the wire rounds 120 up


async def test_stream(gateway: GatewayHarness) -> None:
    gateway.generator.flip_to = NEXT_VERSION
    chunks = [
        chunk
        async for chunk in await gateway.openai.chat.completions.create(
            model="thumbloop", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    ]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Water it when dry."
    first: Any = chunks[0].choices[0].model_dump()
    assert first["delta"]["role"] == "assistant"
    assert first["thumbloop"]["policy_version"] == VERSION
    assert first["thumbloop"]["feedback_token"]
    last: Any = chunks[-2].choices[0].model_dump()
    assert last["finish_reason"] == "stop"
    assert [span["policy_version"] for span in last["thumbloop"]["spans"]] == [VERSION, NEXT_VERSION]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4


async def test_two_choices(gateway: GatewayHarness) -> None:
    answer = await gateway.openai.chat.completions.create(model="thumbloop", messages=ASK, n=2, user="alice")
    assert [choice.index for choice in answer.choices] == [0, 1]
    first, second = gateway.generator.requests
    assert first.rollout_id != second.rollout_id
    assert first.group_id == second.group_id != first.rollout_id
    assert first.prompt_id == second.prompt_id
    tokens = {choice.model_dump()["thumbloop"]["feedback_token"] for choice in answer.choices}
    assert len(tokens) == 2


async def test_two_choices_streamed(gateway: GatewayHarness) -> None:
    texts = {0: "", 1: ""}
    ids: dict[int, str] = {}
    stream = await gateway.openai.chat.completions.create(model="thumbloop", messages=ASK, n=2, stream=True)
    async for chunk in stream:
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        if choice.delta.role:
            ids[choice.index] = choice.model_dump()["thumbloop"]["rollout_id"]
    assert texts == {0: "Water it when dry.", 1: "Water it when dry."}
    assert ids[0] != ids[1]


async def test_models(gateway: GatewayHarness) -> None:
    models = await gateway.openai.models.list()
    assert [model.id for model in models.data] == ["thumbloop"]
    assert (await gateway.openai.models.retrieve("thumbloop")).id == "thumbloop"


async def test_store_false_leaves_nothing_to_rate(gateway: GatewayHarness) -> None:
    loop = await gateway.choice(store=False, user="alice")
    assert loop["feedback_token"] is None and loop["kinds"] == []
    assert gateway.generator.requests[0].unrecorded
    assert gateway.generator.requests[0].rater_id == ""


async def test_a_named_conversation_and_a_trace_are_passed_on(gateway: GatewayHarness) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    gateway.http.headers["traceparent"] = trace
    loop = await gateway.choice(metadata={"conversation_id": "ticket-7"})
    assert loop["conversation_id"] == "ticket-7"
    assert gateway.generator.requests[0].traceparent == trace


async def test_one_user_keeps_conversation_and_pseudonym_and_nobody_has_none(gateway: GatewayHarness) -> None:
    for user in ("alice", "alice", "bob", None, None):
        await gateway.chat(**({"user": user} if user else {}))
    alice, again, bob, nobody, stranger = gateway.generator.requests
    assert (alice.rater_id, alice.conversation_id) == (again.rater_id, again.conversation_id)
    assert len({alice.rater_id, bob.rater_id, nobody.rater_id, stranger.rater_id}) == 4
    assert len({alice.conversation_id, bob.conversation_id, nobody.conversation_id, stranger.conversation_id}) == 4
    assert len({request.prompt_id for request in gateway.generator.requests}) == 1
