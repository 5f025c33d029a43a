"""Where did it go? `GET /v1/feedback/{id}` for everything that was acknowledged, until all states are final."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import httpx

from tests.benchmarks.chaos.statements import Statement
from tests.benchmarks.chaos.verdict import FINAL

AT_ONCE = 8
ROUND_S = 1.0
ORPHANS_WAIT_S = 5.0


async def final_states(
    url: str, statements: Sequence[Statement], *, within_s: float, now: Callable[[], float] = time.monotonic
) -> dict[str, str]:
    """State by feedback id, asked again until it is final or the time is over. Not known: "".

    An orphan's rollout may lie on a disk and come late, so orphans are asked once more when all others are final, after
    `ORPHANS_WAIT_S`.
    """
    states = {statement.feedback_id: "" for statement in statements}
    deadline = now() + within_s
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=10.0) as http:

        async def ask(statement: Statement) -> None:
            async with gate:
                states[statement.feedback_id] = await _state(http, statement) or states[statement.feedback_id]

        while open_ones := [one for one in statements if states[one.feedback_id] not in FINAL]:
            await asyncio.gather(*(ask(statement) for statement in open_ones))
            if now() > deadline:
                break
            await asyncio.sleep(ROUND_S)
        waited_until = min(deadline, now() + ORPHANS_WAIT_S)
        while orphans := [one for one in statements if states[one.feedback_id] == "orphaned"]:
            if now() > waited_until:
                break
            await asyncio.sleep(ROUND_S)
            await asyncio.gather(*(ask(statement) for statement in orphans))
    return states


async def _state(http: httpx.AsyncClient, statement: Statement) -> str:
    """Empty: no answer, or not known."""
    with contextlib.suppress(httpx.HTTPError):
        headers = {"Authorization": f"Feedback {statement.token}"}
        response = await http.get(f"/v1/feedback/{statement.feedback_id}", headers=headers)
        if response.is_success:
            return str(response.json()["state"])
    return ""
