"""The load: clients who chat, say what they think, repeat themselves, and try again until they are heard."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.simulate.prompts import load_prompts
from tests.benchmarks.chaos.chatting import WAYS, ChatFailed, chat
from tests.benchmarks.chaos.journal import ClientJournal
from tests.benchmarks.chaos.opinions import Opinions
from tests.benchmarks.chaos.statements import Ledger, Statement

REQUEST_TIMEOUT_S = 20.0
REPEATED = 0.3
"""Share of acknowledged statements that are sent again, some turns later: by then a service may have died."""
REPEAT_AFTER_TURNS = 4
REST_S = 0.5
"""After a chat that failed."""


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """`patience_s`: after so long without a 2xx a statement is left unknown."""

    clients: int = 6
    patience_s: float = 30.0
    think_s: float = 0.3
    seed: int = 0


class Load:
    """`run` returns some time after `stop`. `ledger` is what the clients know so far."""

    def __init__(self, *, url: str, folder: Path, settings: LoadSettings, now: Callable[[], float] = time.time) -> None:
        self._url = url
        self._folder = folder
        self._settings = settings
        self._now = now
        self._going = True
        self.ledger = Ledger()

    @property
    def journals(self) -> list[Path]:
        """The files, one a client."""
        return [self._folder / f"client-{number}.jsonl" for number in range(self._settings.clients)]

    def stop(self) -> None:
        """No new chats; what was begun is brought to its end."""
        self._going = False

    async def run(self) -> None:
        """Until `stop`."""
        limits = httpx.Limits(max_connections=4 * self._settings.clients)
        async with httpx.AsyncClient(base_url=self._url, timeout=REQUEST_TIMEOUT_S, limits=limits) as http:
            clients = [self._client(http, number, path) for number, path in enumerate(self.journals)]
            await asyncio.gather(*(client.live(lambda: self._going) for client in clients))

    def _client(self, http: httpx.AsyncClient, number: int, path: Path) -> Client:
        return Client(
            http=http,
            name=f"client-{number}",
            journal=ClientJournal(path, self.ledger, self._now),
            settings=self._settings,
            now=self._now,
        )


class Client:
    """One person, with dice of their own."""

    def __init__(
        self,
        *,
        http: httpx.AsyncClient,
        name: str,
        journal: ClientJournal,
        settings: LoadSettings,
        now: Callable[[], float],
    ) -> None:
        self._http = http
        self._name = name
        self._journal = journal
        self._settings = settings
        self._now = now
        self._dice = random.Random(f"{settings.seed}/{name}")
        self._opinions = Opinions(self._dice, milliseconds=lambda: int(now() * 1000))
        self._prompts = load_prompts("asked")
        self._repeats: deque[tuple[int, Statement]] = deque()

    async def live(self, going: Callable[[], bool]) -> None:
        """Chats and talks while `going`."""
        turn = 0
        try:
            while going():
                turn += 1
                await self._turn(turn)
                await asyncio.sleep(self._settings.think_s * self._dice.uniform(0.5, 1.5))
        finally:
            self._journal.close()

    async def _turn(self, turn: int) -> None:
        way, prompt = self._dice.choice(WAYS), self._dice.choice(self._prompts)
        try:
            answers = await chat(self._http, prompt=prompt, user=self._name, way=way, now=self._now)
        except ChatFailed as failed:
            answers = failed.answers
            self._journal.chat_failed(cut=bool(answers), why=str(failed))
            await asyncio.sleep(REST_S)
        for answer in answers:
            self._journal.answer(answer)
        for said in self._opinions.on(answers):
            for statement in said:
                await self._say(statement, turn)
        while self._repeats and self._repeats[0][0] <= turn:
            await self._send(self._repeats.popleft()[1])

    async def _say(self, statement: Statement, turn: int) -> None:
        self._journal.says(statement)
        if await self._send(statement) and self._dice.random() < REPEATED:
            self._repeats.append((turn + REPEAT_AFTER_TURNS, statement))

    async def _send(self, statement: Statement) -> bool:
        """Tries until it is acknowledged or refused, or patience ends. Whether it was acknowledged."""
        deadline = self._now() + self._settings.patience_s
        pause_s = 0.1
        while True:
            response = await self._try(statement)
            if response is not None and response.is_success:
                told = response.json()
                self._journal.acknowledged(statement.feedback_id, state=told["state"], revision=told["revision"])
                return True
            if response is not None and response.is_client_error and response.status_code != 429:
                self._journal.refused(statement.feedback_id, f"{response.status_code} {response.text}")
                return False
            if response is None or response.status_code != 429:
                why = "no answer" if response is None else f"{response.status_code} {response.text}"
                self._journal.uncertain(statement.feedback_id, why)
            if self._now() + pause_s > deadline:
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)

    async def _try(self, statement: Statement) -> httpx.Response | None:
        """None: no answer came."""
        with contextlib.suppress(httpx.HTTPError):
            return await self._http.post("/v1/feedback", json=statement.request())
        return None
