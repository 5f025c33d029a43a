"""Spooled items to the log, in order for each rollout."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.gateway.spool.delivery import Delivery, Failure, outgoing
from services.gateway.spool.item import StoredItem
from services.shared.domain.errors import InvalidInput, PermissionDenied


@dataclass(kw_only=True)
class Sent:
    """What became of a batch. What is in no list was not tried: it is of somebody who was forgotten, or behind a
    failure of its rollout.
    """

    acknowledged: list[StoredItem] = field(default_factory=list)
    refused: list[tuple[StoredItem, InvalidInput]] = field(default_factory=list)
    failed: list[tuple[StoredItem, Failure]] = field(default_factory=list)
    """At most one of each rollout. They may have been written all the same."""


class Sender:
    """Publishes each item with patience."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    async def send(self, items: Iterable[StoredItem]) -> Sent:
        """Sends rollouts beside one another, the items of each one after another: the next when the one before was
        acknowledged. `items` are in the order of arrival. Passes by what is of somebody who was forgotten: whoever
        carries that order out takes it off the disk.
        """
        chains: dict[tuple[str, str], list[StoredItem]] = {}
        for stored in items:
            chains.setdefault(stored.item.key.rollout, []).append(stored)
        sent = Sent()
        await asyncio.gather(*(self._send_chain(chain, sent) for chain in chains.values()))
        return sent

    async def _send_chain(self, chain: list[StoredItem], sent: Sent) -> None:
        for stored in chain:
            key = stored.item.key
            event = outgoing(key.rollout_id, stored.item.event)
            try:
                failure = await self._delivery.publish(event, tenant=key.tenant, rater_id=key.rater_id)
            except InvalidInput as error:
                sent.refused.append((stored, error))
            except PermissionDenied:
                continue
            else:
                if failure is not None:
                    sent.failed.append((stored, failure))
                    return
                sent.acknowledged.append(stored)
