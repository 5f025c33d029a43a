"""What this gateway holds of people, and lets go of when it is ordered to: memory, and its spool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from services.shared.domain.control import Forget
from services.shared.domain.errors import Busy
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.log import get_logger

TIMEOUT_S = 30.0
"""For the event loop and the disk; past it the order is tried again."""

_log = get_logger()
T = TypeVar("T")

Drop = Callable[[str, str, Sequence[str]], None]
"""Takes tenant, rater and rollouts out of memory. Called on the event loop."""

InHand = Callable[[str, str], bool]
"""Whether something of this tenant's rater is on its way to log or disk. Called on the event loop."""


class Spool(Protocol):
    """Statements on disk."""

    def delete_for(self, *, tenant: str, rater_ids: Sequence[str], rollout_ids: Sequence[str]) -> Future[int]:
        """How many were deleted, once they are."""


class GatewayMemory:
    """Carries orders out from the follower's thread; what lives on the event loop is changed there."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        forgotten: ForgottenRaters,
        drops: Sequence[Drop],
        in_hand: Sequence[InHand],
        spool: Spool | None,
    ) -> None:
        """`forgotten` is asked by whoever records, when it records, so that nothing of theirs comes in afterwards."""
        self._loop = loop
        self._forgotten = forgotten
        self._drops = tuple(drops)
        self._in_hand = tuple(in_hand)
        self._spool = spool

    def forget(self, control_id: str, tenant: str, order: Forget) -> None:
        """Returns when nothing of theirs is left here or will come out. Twice is once.

        Raises Busy while something is on its way to the log, TimeoutError, and what the disk raises.
        """
        self._forgotten.add(tenant, order.rater_id)
        self._on_loop(self._drop(tenant, order))
        deleted = 0
        if self._spool is not None:
            wanted = self._spool.delete_for(
                tenant=tenant, rater_ids=[order.rater_id], rollout_ids=list(order.rollout_ids)
            )
            deleted = wanted.result(TIMEOUT_S)
        if self._on_loop(self._is_in_hand(tenant, order.rater_id)):
            raise Busy("a statement of theirs is on its way to the log; it ends within the log's time-out.")
        _log.info("person_forgotten", control_id=control_id, spooled=deleted)

    async def _drop(self, tenant: str, order: Forget) -> None:
        for drop in self._drops:
            drop(tenant, order.rater_id, order.rollout_ids)

    async def _is_in_hand(self, tenant: str, rater_id: str) -> bool:
        return any(has(tenant, rater_id) for has in self._in_hand)

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)
