"""What this replica holds of people, and lets go of when it is ordered to: running answers, and its queue on disk.

An answer that runs goes on, for somebody waits for it; its rollout is not recorded. One whose rollout is on its way to
Kafka at this moment is waited for, over as many attempts as that takes: what came out before the order was carried out
is ingest's to keep out.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from services.generator.rollout_queue import RolloutQueue
from services.shared.domain.control import Forget
from services.shared.domain.errors import Busy
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.log import get_logger

TIMEOUT_S = 10.0
"""For the event loop; past it the order is tried again."""

_log = get_logger()


class Answers(Protocol):
    """Running sessions."""

    def is_recording(self, tenant: str, rater_id: str) -> bool:
        """A rollout of the rater is being made safe."""


class Sending(Protocol):
    """What empties the queue."""

    @property
    def sending(self) -> frozenset[str]:
        """Rollouts that are on their way to Kafka."""


class GeneratorMemory:
    """Carries orders out from the follower's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        forgotten: ForgottenRaters,
        answers: Answers,
        sender: Sending,
        queue: RolloutQueue,
    ) -> None:
        """`forgotten` is asked by each session before it records."""
        self._loop = loop
        self._forgotten = forgotten
        self._answers = answers
        self._sender = sender
        self._queue = queue
        self._leaving: dict[str, frozenset[str]] = {}
        """By order: rollouts that were deleted while they were on their way."""

    def forget(self, control_id: str, tenant: str, order: Forget) -> None:
        """Returns when nothing of theirs is here or will come out. Twice is once. Raises Busy, TimeoutError."""
        self._forgotten.add(tenant, order.rater_id)
        if asyncio.run_coroutine_threadsafe(self._is_recording(tenant, order), self._loop).result(TIMEOUT_S):
            raise Busy("a rollout of theirs is being written; it ends within the acknowledgement's time-out.")
        deleted = self._queue.delete_for(tenant=tenant, rater_id=order.rater_id, rollout_ids=order.rollout_ids)
        # Asked after the deletion: whatever the sender takes from now on is no longer theirs.
        leaving = self._leaving.pop(control_id, frozenset()).union(deleted) & self._sender.sending
        if leaving:
            self._leaving[control_id] = leaving
            raise Busy("a rollout of theirs is on its way from the queue; it ends within the time-out.")
        self._queue.clear_log()
        _log.info("person_forgotten", control_id=control_id)

    async def _is_recording(self, tenant: str, order: Forget) -> bool:
        return self._answers.is_recording(tenant, order.rater_id)
