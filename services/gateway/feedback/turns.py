"""One statement at a time under one id: who sends again while the first still runs gets the first one's answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class StatementId(NamedTuple):
    """A feedback id as its rater means it: nobody meets another's."""

    tenant: str
    rater_id: str
    feedback_id: str


class Turns:
    """Locks by id, kept only while somebody holds or waits for them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._locks: dict[StatementId, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        """Ids that are being worked on."""
        return len(self._locks)

    @asynccontextmanager
    async def of(self, statement_id: StatementId) -> AsyncIterator[None]:
        """Held while a statement of this id is made durable."""
        lock, users = self._locks.get(statement_id, (asyncio.Lock(), 0))
        self._locks[statement_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[statement_id]
            if users == 1:
                del self._locks[statement_id]
            else:
                self._locks[statement_id] = (lock, users - 1)
