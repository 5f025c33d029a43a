"""Scripted users: they chat over the public HTTP API and send thumbs by a taste of theirs, now and then wrongly.

Retries are switched off, so that a refusal or a cut answer is counted and not hidden.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.simulate.journal import AcknowledgedThumb, Journal
from services.simulate.prompts import load_prompts
from services.simulate.tastes import Taste, find_taste

REQUEST_TIMEOUT_S = 120.0
REST_AFTER_ERROR_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How users behave."""

    taste: Taste
    users: int = 12
    rated_share: float = 0.5
    wrong_share: float = 0.1
    """Share of thumbs that say the opposite of the taste."""
    temperature: float = 0.8
    max_tokens: int = 24
    think_s: float = 2.5
    """On average: to read an answer before clicking, and again before the next question."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a client got."""

    rollout_id: str
    policy_version: str
    feedback_token: str
    text: str


class BrokenOffError(Exception):
    """A stream ended before its end mark."""


class Crowd:
    """`users` people who chat until they are told to stop."""

    def __init__(
        self,
        *,
        url: str,
        habits: Habits,
        journal: Journal,
        seed: int,
        api_key: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        """`api_key` with scope chat, where the gateway wants one."""
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._url = url
        self._habits = habits
        self._journal = journal
        self._seed = seed
        self._now = now
        self._going = True
        self._rating = True
        self._prompts = load_prompts("asked")

    def stop_rating(self) -> None:
        """They go on chatting, without thumbs."""
        self._rating = False

    def stop(self) -> None:
        """They finish the answer that they are reading."""
        self._going = False

    async def run(self) -> None:
        """Until `stop`."""
        limits = httpx.Limits(max_connections=self._habits.users * 2)
        async with httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=REQUEST_TIMEOUT_S, limits=limits
        ) as client:
            await asyncio.gather(*(self._live(client, user) for user in range(self._habits.users)))

    async def _live(self, client: httpx.AsyncClient, user: int) -> None:
        dice = random.Random(f"{self._seed}/{user}")
        while self._going:
            prompt = dice.choice(self._prompts)
            try:
                answer = await self._ask(client, f"user-{user}", prompt, stream=dice.random() < 0.5)
            except BrokenOffError as error:
                self._journal.cut(str(error))
            except httpx.HTTPError as error:
                self._journal.refused(f"{type(error).__name__}: {error}")
                await asyncio.sleep(REST_AFTER_ERROR_S)
            else:
                self._journal.answer(
                    rollout_id=answer.rollout_id, policy_version=answer.policy_version, prompt=prompt, text=answer.text
                )
                await self._react(client, dice, answer)
                await self._think(dice)

    async def _ask(self, client: httpx.AsyncClient, user: str, prompt: str, *, stream: bool) -> Answer:
        body = {
            "model": "thumbloop",
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self._habits.temperature,
            "max_tokens": self._habits.max_tokens,
            "user": user,
            "stream": stream,
        }
        if stream:
            return await self._read_stream(client, body)
        response = await client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        choice = response.json()["choices"][0]
        return _answer(choice["thumbloop"], choice["message"]["content"] or "")

    async def _read_stream(self, client: httpx.AsyncClient, body: dict[str, object]) -> Answer:
        facts: dict[str, str] = {}
        text = ""
        ended = False
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            try:
                async for line in response.aiter_lines():
                    if not line.startswith("data: "):
                        continue
                    if line == "data: [DONE]":
                        ended = True
                        break
                    for choice in json.loads(line.removeprefix("data: ")).get("choices", ()):
                        facts = {**choice.get("thumbloop", {}), **facts}
                        text += choice["delta"].get("content") or ""
            except httpx.TransportError as error:
                raise BrokenOffError(f"{type(error).__name__} after {len(text)} characters") from error
        if not ended:
            raise BrokenOffError(f"the stream ended without [DONE] after {len(text)} characters")
        return _answer(facts, text)

    async def _react(self, client: httpx.AsyncClient, dice: random.Random, answer: Answer) -> None:
        """A thumb, or none."""
        rates = dice.random() < self._habits.rated_share
        wrong = dice.random() < self._habits.wrong_share
        await self._think(dice)
        if not (rates and self._rating):
            return
        up = self._habits.taste.likes(answer.text) != wrong
        feedback_id = str(uuid.uuid4())
        body = {
            "token": answer.feedback_token,
            "kind": "thumb",
            "value": "up" if up else "down",
            "feedback_id": feedback_id,
        }
        try:
            response = await client.post("/v1/feedback", json=body)
            response.raise_for_status()
        except httpx.HTTPError as error:
            self._journal.thumb_refused(f"{type(error).__name__}: {error}")
            return
        self._journal.thumb(
            AcknowledgedThumb(
                feedback_id=feedback_id,
                rollout_id=answer.rollout_id,
                policy_version=answer.policy_version,
                up=up,
                acknowledged_at=self._now(),
            )
        )

    async def _think(self, dice: random.Random) -> None:
        await asyncio.sleep(self._habits.think_s * dice.uniform(0.5, 1.5))


def _answer(facts: dict[str, str], text: str) -> Answer:
    return Answer(
        rollout_id=facts["rollout_id"],
        policy_version=facts["policy_version"],
        feedback_token=facts["feedback_token"],
        text=text,
    )


def run_users(*, url: str, users: int, taste: str, seconds: float, seed: int, journal: Path) -> int:
    """`thumbloop simulate`. Exit code 0 when no request was refused and no answer cut.

    Where the gateway wants a key, it is taken from THUMBLOOP_API_KEY.
    """
    from rich.console import Console

    book = Journal(journal)
    habits = Habits(taste=find_taste(taste), users=users)
    crowd = Crowd(url=url, habits=habits, journal=book, seed=seed, api_key=os.environ.get("THUMBLOOP_API_KEY", ""))

    async def bounded() -> None:
        asyncio.get_running_loop().call_later(seconds, crowd.stop)
        await crowd.run()

    asyncio.run(bounded())
    book.close()
    counts = book.counts
    console = Console()
    console.print(
        f"{counts.answers} answers, {counts.refused} refused, {counts.cut} cut; "
        f"{counts.thumbs_acknowledged} thumbs acknowledged, {counts.thumbs_refused} refused. Journal: {journal}"
    )
    for line in counts.errors:
        console.print(f"[red]{line}[/]")
    return 1 if counts.refused or counts.cut or counts.thumbs_refused else 0
