"""A statement to the log, with patience.

Whoever publishes waits no longer than the patience. The statement stays *under way* until the log's own word, which may
come later (within `bus.ack_timeout_s`), whoever has gone away meanwhile: an order to forget waits for that. Of somebody
who was forgotten nothing begins.
"""

from __future__ import annotations

import asyncio

from services.gateway.forgetting.refusal import person_forgotten
from services.shared.bus.interface import OutgoingEvent, Publisher, Record
from services.shared.contracts.topics import FEEDBACK
from services.shared.domain.errors import Busy, Unavailable
from services.shared.releases.forget_orders import ForgottenRaters

Failure = Unavailable | Busy | TimeoutError
"""Why it is not known that the log has an event. It may have been written all the same."""


class Delivery:
    """Belongs to one event loop. How much is under way the publisher bounds."""

    def __init__(self, publisher: Publisher, *, forgotten: ForgottenRaters, patience_s: float) -> None:
        self._publisher = publisher
        self._forgotten = forgotten
        self._patience_s = patience_s
        self._under_way: dict[asyncio.Task[Record], tuple[str, str]] = {}
        """Tenant and rater."""

    def is_under_way(self, tenant: str, rater_id: str) -> bool:
        """Whether something of a rater is on its way to the log. To be asked on the event loop."""
        return (tenant, rater_id) in self._under_way.values()

    async def publish(self, event: OutgoingEvent, *, tenant: str, rater_id: str) -> Failure | None:
        """None: the log has it. Raises InvalidInput for what it never takes, PermissionDenied for a rater who was
        forgotten.
        """
        if self._forgotten.has(tenant, rater_id):
            raise person_forgotten()
        # A task, a future and a timer: half the processor time of asyncio's own ways to wait for a task with a limit.
        loop = asyncio.get_running_loop()
        task: asyncio.Task[Record] = loop.create_task(self._publisher.publish(event))
        decided: asyncio.Future[None] = loop.create_future()
        patience = loop.call_later(self._patience_s, _decide, decided)

        def ended(task: asyncio.Task[Record]) -> None:
            del self._under_way[task]
            patience.cancel()
            _decide(decided)
            _take_failure(task)  # also where nobody waits for it any more

        self._under_way[task] = tenant, rater_id
        task.add_done_callback(ended)
        await decided
        if not task.done():
            return TimeoutError(f"no acknowledgement within {self._patience_s:g} s")
        failure = _take_failure(task)
        if failure is None or isinstance(failure, (Unavailable, Busy)):
            return failure
        raise failure


def outgoing(rollout_id: str, event: bytes) -> OutgoingEvent:
    """An event of topic `feedback`."""
    return OutgoingEvent(topic=FEEDBACK, key=rollout_id, value=event)


def _decide(decided: asyncio.Future[None]) -> None:
    if not decided.done():
        decided.set_result(None)


def _take_failure(task: asyncio.Task[Record]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
