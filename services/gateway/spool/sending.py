"""Spooled items to the log, in order for each rollout."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.gateway.spool.item import StoredItem
from services.shared.bus.interface import OutgoingEvent, Publisher
from services.shared.contracts.topics import FEEDBACK
from services.shared.domain.errors import Busy, InvalidInput, Unavailable


@dataclass(kw_only=True)
class Sent:
    """What became of a batch. What is in neither list was not acknowledged; it may have been written all the same."""

    acknowledged: list[StoredItem] = field(default_factory=list)
    refused: list[tuple[StoredItem, InvalidInput]] = field(default_factory=list)
    failure: Unavailable | Busy | TimeoutError | None = None
    """Why something was not acknowledged."""


class Sender:
    """Publishes with a deadline of its own for each item."""

    def __init__(self, publisher: Publisher, *, patience_s: float) -> None:
        self._publisher = publisher
        self._patience_s = patience_s
        self._sending: tuple[StoredItem, ...] = ()

    def is_sending(self, tenant: str, rater_id: str) -> bool:
        """Whether something of a rater is on its way. To be asked on the event loop that sends."""
        return any((stored.item.key.tenant, stored.item.key.rater_id) == (tenant, rater_id) for stored in self._sending)

    async def send(self, items: Iterable[StoredItem]) -> Sent:
        """Sends rollouts beside one another, the items of each one after another: the next when the one before was
        acknowledged. `items` are in the order of arrival. One call at a time.
        """
        self._sending = tuple(items)
        try:
            return await self._send()
        finally:
            self._sending = ()

    async def _send(self) -> Sent:
        chains: dict[tuple[str, str], list[StoredItem]] = {}
        for stored in self._sending:
            chains.setdefault((stored.item.key.tenant, stored.item.key.rollout_id), []).append(stored)
        sent = Sent()
        await asyncio.gather(*(self._send_chain(chain, sent) for chain in chains.values()))
        return sent

    async def _send_chain(self, chain: list[StoredItem], sent: Sent) -> None:
        for stored in chain:
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._publisher.publish(outgoing(stored.item.key.rollout_id, stored.item.event))
            except InvalidInput as error:
                sent.refused.append((stored, error))
            except (TimeoutError, Unavailable, Busy) as error:
                sent.failure = error
                return
            else:
                sent.acknowledged.append(stored)


def outgoing(rollout_id: str, event: bytes) -> OutgoingEvent:
    """An event of topic `feedback`."""
    return OutgoingEvent(topic=FEEDBACK, key=rollout_id, value=event)
