"""One chat over the public HTTP API, in one of three ways: what the client was shown of it, whole or broken off."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from tests.benchmarks.chaos.statements import Answer

WAYS = ("plain", "stream", "two")
MAX_TOKENS = 12


class ChatFailed(Exception):
    """A chat came to no good end. `answers` are what had been shown by then; they can be rated."""

    def __init__(self, why: str, answers: list[Answer]) -> None:
        super().__init__(why)
        self.answers = answers


async def chat(
    client: httpx.AsyncClient, *, prompt: str, user: str, way: str, now: Callable[[], float]
) -> list[Answer]:
    """The choices, one or two. Raises ChatFailed."""
    body = {
        "model": "thumbloop",
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0.8,
        "max_tokens": MAX_TOKENS,
        "user": user,
        "stream": way == "stream",
        "n": 2 if way == "two" else 1,
    }
    asked_at = now()
    if way == "stream":
        return await _stream(client, body, asked_at, now)
    try:
        response = await client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise ChatFailed(_why(error), []) from error
    ended_at = now()
    return [
        _answer(choice["thumbloop"], complete=True, asked_at=asked_at, ended_at=ended_at)
        for choice in response.json()["choices"]
    ]


async def _stream(
    client: httpx.AsyncClient, body: dict[str, Any], asked_at: float, now: Callable[[], float]
) -> list[Answer]:
    facts: dict[str, Any] = {}
    why = "the stream ended without [DONE]"
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    return [_answer(facts, complete=True, asked_at=asked_at, ended_at=now())]
                if line.startswith("data: "):
                    for choice in json.loads(line.removeprefix("data: ")).get("choices", ()):
                        facts = {**choice.get("thumbloop", {}), **facts}
    except httpx.HTTPError as error:
        why = _why(error)
    shown = [_answer(facts, complete=False, asked_at=asked_at, ended_at=now())] if "feedback_token" in facts else []
    raise ChatFailed(why, shown)


def _answer(facts: dict[str, Any], *, complete: bool, asked_at: float, ended_at: float) -> Answer:
    return Answer(
        rollout_id=facts["rollout_id"],
        prompt_id=facts["prompt_id"],
        token=facts["feedback_token"],
        kinds=tuple(facts["kinds"]),
        complete=complete,
        asked_at=asked_at,
        ended_at=ended_at,
    )


def _why(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return f"{type(error).__name__}: {error}"
