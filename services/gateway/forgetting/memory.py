"""What this gateway holds of people, and lets go of when it is ordered to: memory, and its spool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from services.shared.domain.control import Forget
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.log import get_logger

TIMEOUT_S = 30.0
"""For the event loop and the disk; past it the order is tried again."""

_log = get_logger()

Drop = Callable[[str, str, Sequence[str]], None]
"""Takes tenant, rater and rollouts out of memory. Called on the event loop."""


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
        spool: Spool | None,
    ) -> None:
        """`forgotten` is asked by whoever records, so that nothing of theirs comes in afterwards."""
        self._loop = loop
        self._forgotten = forgotten
        self._drops = tuple(drops)
        self._spool = spool

    def forget(self, control_id: str, tenant: str, order: Forget) -> None:
        """Returns when nothing of theirs is left here. Twice is once. Raises TimeoutError, and what the disk raises."""
        self._forgotten.add(tenant, order.rater_id)
        asyncio.run_coroutine_threadsafe(self._drop(tenant, order), self._loop).result(TIMEOUT_S)
        deleted = 0
        if self._spool is not None:
            wanted = self._spool.delete_for(
                tenant=tenant, rater_ids=[order.rater_id], rollout_ids=list(order.rollout_ids)
            )
            deleted = wanted.result(TIMEOUT_S)
        _log.info("person_forgotten", control_id=control_id, spooled=deleted)

    async def _drop(self, tenant: str, order: Forget) -> None:
        for drop in self._drops:
            drop(tenant, order.rater_id, order.rollout_ids)
