"""What a newcomer does: the unmodified `openai` client chats, httpx sends a thumb, and the thumb is followed home.

Plan: on the scripted loop, chat plain, streaming and with n=2; send a thumb on each answer; keep chatting until a
policy has learned from the first thumb. Then ask the reward service for a score, knowing of it by reflection alone.
Pass: every answer names its version and carries a token; each thumb is acknowledged, later joined; the first one's
state names a policy that learned from it; sending it again changes nothing; a token altered in one place is refused;
the score is a probability.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from services.embedded.supervisor import Supervisor
from tests.support.access import credential_of
from tests.support.loop import crowd_of, eventually
from tests.support.reflection_client import ReflectionClient

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How do I keep a houseplant alive?"}]


@pytest.mark.embedded_alone
async def test_a_thumb_is_followed_into_a_policy(scripted_loop: Supervisor, tmp_path: Path) -> None:
    url = scripted_loop.plan.page_url
    tokens = await asyncio.to_thread(chat_in_every_way, url)
    assert len(tokens) == 4
    async with httpx.AsyncClient(base_url=url, timeout=30) as web:
        sent = [(await web.post("/v1/feedback", json=thumb(token))).raise_for_status().json() for token in tokens]
        assert {answer["state"] for answer in sent} <= {"accepted", "spooled"}
        crowd, journal = crowd_of(scripted_loop.plan, tmp_path / "journal.jsonl")
        users = asyncio.create_task(crowd.run())
        first = await followed_home(web, sent[0]["feedback_id"], tokens[0])
        crowd.stop()
        await users
        assert first["kind"] == "thumb"
        again = await web.post("/v1/feedback", json=thumb(tokens[0]) | {"feedback_id": sent[0]["feedback_id"]})
        assert again.json()["revision"] == sent[0]["revision"]
        altered = tokens[0][:-2] + ("A" if tokens[0][-2] != "A" else "B") + tokens[0][-1]
        refused = await web.post("/v1/feedback", json=thumb(altered))
        assert refused.status_code == 401
        assert refused.json()["error"]["message"]
    assert journal.counts.thumbs_acknowledged > 0


def thumb(token: str) -> dict[str, str]:
    """A thumb up."""
    return {"token": token, "kind": "thumb", "value": "up"}


def chat_in_every_way(url: str) -> list[str]:
    """Feedback tokens of a plain answer, a streamed one, and two at once."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    plain = client.chat.completions.create(model="thumbloop", messages=QUESTION, max_tokens=8)
    both = client.chat.completions.create(model="thumbloop", messages=QUESTION, max_tokens=8, n=2)
    tokens = [extra(choice)["feedback_token"] for choice in (*plain.choices, *both.choices)]
    assert all(extra(choice)["policy_version"].startswith("p-") for choice in (*plain.choices, *both.choices))
    text, version, ended = "", "", ""
    for chunk in client.chat.completions.create(model="thumbloop", messages=QUESTION, max_tokens=8, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            ended = choice.finish_reason or ended
            facts = extra(choice)
            version = facts.get("policy_version", version)
            tokens += [facts["feedback_token"]] if "feedback_token" in facts else []
    assert ended == "stop" or (ended == "length" and text), "only who ends at once says nothing"
    assert version.startswith("p-")
    return tokens


def extra(choice: openai.BaseModel) -> dict[str, str]:
    """The `thumbloop` object, which the client keeps without knowing it."""
    return (choice.model_extra or {}).get("thumbloop") or {}


async def followed_home(web: httpx.AsyncClient, feedback_id: str, token: str) -> dict[str, object]:
    """The feedback's state once a policy has learned from it."""
    state: dict[str, object] = {}

    async def look() -> bool:
        response = await web.get(f"/v1/feedback/{feedback_id}", headers={"Authorization": f"Feedback {token}"})
        if response.status_code == 200:
            state.update(response.json())
        return bool(state.get("trained_into") or state.get("trained_into_through_reward_model"))

    async with asyncio.timeout(90):
        while not await look():
            await asyncio.sleep(0.2)
    assert state["state"] == "joined"
    return state


@pytest.mark.embedded_alone
async def test_reflection_alone_is_enough_to_score_a_text(scripted_loop: Supervisor) -> None:
    await eventually(lambda: scripted_loop.is_ready("reward"), within_s=30, what="reward is ready")
    credential = credential_of(scripted_loop.plan.data_dir)
    with grpc.insecure_channel(f"127.0.0.1:{scripted_loop.plan.ports['reward']}") as channel:
        client = ReflectionClient(channel, metadata=[("authorization", credential.authorization())])
        text = {"messages": [{"role": "ROLE_USER", "content": "Hi"}], "response": "Hello, how are you?"}
        answer = await asyncio.to_thread(
            client.call, "thumbloop.reward.v1.RewardService", "Score", {"items": [{"text": text}]}
        )
    (score,) = answer["scores"]
    assert 0 <= score["mean"] <= 1
    assert answer["reward_model_version"].startswith("rm-")
