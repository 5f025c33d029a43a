"""Where did it go? `GET /v1/feedback/{id}` for everything that was acknowledged, until all states are final.

*Orphaned* is not the last word: the rollout may lie on a disk and come late, or be sent again. So orphans are asked
about until the time is over, all but those that are explained; these get `ORPHANS_WAIT_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

import httpx

from tests.benchmarks.chaos.statements import Statement
from tests.benchmarks.chaos.verdict import FINAL

AT_ONCE = 16
ROUND_S = 1.0
ORPHANS_WAIT_S = 5.0


class Fates:
    """`states` by feedback id, as last heard; not known: "". `settle` asks until all are final or the time is over."""

    def __init__(
        self,
        url: str,
        statements: Sequence[Statement],
        *,
        may_be_orphaned: Callable[[Statement], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`may_be_orphaned`: a kill explains it."""
        self._url = url
        self._statements = statements
        self._may_be_orphaned = may_be_orphaned
        self._now = now
        self.states = {statement.feedback_id: "" for statement in statements}
        self.final = 0

    async def settle(self, within_s: float) -> None:
        """First the others, then the orphans."""
        deadline = self._now() + within_s
        async with httpx.AsyncClient(base_url=self._url, timeout=10.0) as http:
            while open_ones := [one for one in self._statements if self.states[one.feedback_id] not in FINAL]:
                await self._ask(http, open_ones, deadline)
                if self._now() > deadline:
                    return
                await asyncio.sleep(ROUND_S)
            explained_by = self._now() + ORPHANS_WAIT_S
            while orphans := [one for one in self._statements if self.states[one.feedback_id] == "orphaned"]:
                now = self._now()
                if now > deadline or (now > explained_by and all(map(self._may_be_orphaned, orphans))):
                    return
                await asyncio.sleep(ROUND_S)
                await self._ask(http, orphans, deadline)

    async def _ask(self, http: httpx.AsyncClient, statements: Iterable[Statement], deadline: float) -> None:
        """Once each; who is not asked by the deadline is not asked."""
        waiting = iter(statements)

        async def some() -> None:
            for statement in waiting:
                if self._now() > deadline:
                    return
                former = self.states[statement.feedback_id]
                state = await _state(http, statement) or former
                self.states[statement.feedback_id] = state
                self.final += (state in FINAL) - (former in FINAL)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def _state(http: httpx.AsyncClient, statement: Statement) -> str:
    """Empty: no answer, or not known."""
    with contextlib.suppress(httpx.HTTPError):
        headers = {"Authorization": f"Feedback {statement.token}"}
        response = await http.get(f"/v1/feedback/{statement.feedback_id}", headers=headers)
        if response.is_success:
            return str(response.json()["state"])
    return ""
