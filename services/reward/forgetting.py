"""What this replica holds of people, and lets go of when it is ordered to: the records in hand, scores on their way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.shared.bus.interface import OutgoingEvent, Record
from services.shared.bus.traces import ids_in
from services.shared.domain.control import Forget
from services.shared.domain.errors import Busy
from services.shared.domain.rollout import Rollout
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.log import get_logger

_log = get_logger()


class RecordsInHand:
    """Whose rollouts the consumer's thread is at. Noted there, asked from the follower's thread."""

    def __init__(self, forgotten: ForgottenRaters) -> None:
        self._forgotten = forgotten
        self._owners: dict[str, tuple[str, str]] = {}

    def begin(self) -> None:
        """A new batch: what was in hand is done with."""
        self._owners = {}

    def take(self, rollout: Rollout) -> bool:
        """Notes whose it is. False: they are forgotten, and it is to be left alone."""
        owner = (rollout.meta.tenant, rollout.rater_id)
        # Noted first: an order that comes between the two lines finds it, and waits.
        self._owners[rollout.rollout_id] = owner
        return not self._forgotten.has(*owner)

    def names_forgotten(self, record: Record) -> bool:
        """Of bytes that do not read: whether they name somebody who is forgotten."""
        return self._forgotten.any_of(ids_in(record))

    def without_forgotten(self, events: Sequence[OutgoingEvent]) -> list[OutgoingEvent]:
        """Events, by their rollout, of people who are not forgotten by now."""
        return [event for event in events if not self._forgotten.has(*self._owners.get(event.key, ("", "")))]

    def has(self, tenant: str, rater_id: str) -> bool:
        """Whether a rollout of theirs is in hand."""
        return (tenant, rater_id) in self._owners.copy().values()


class InHand(Protocol):
    """See RecordsInHand."""

    def has(self, tenant: str, rater_id: str) -> bool:
        """Whether a rollout of theirs is in hand."""


class RewardMemory:
    """Carries orders out."""

    def __init__(self, *, forgotten: ForgottenRaters, in_hand: InHand) -> None:
        self._forgotten = forgotten
        self._in_hand = in_hand

    def forget(self, control_id: str, tenant: str, order: Forget) -> None:
        """Returns when nothing of theirs is here or will come out. Twice is once. Raises Busy."""
        self._forgotten.add(tenant, order.rater_id)
        if self._in_hand.has(tenant, order.rater_id):
            raise Busy("a batch with rollouts of theirs is being scored; their scores are left out.")
        _log.info("person_forgotten", control_id=control_id)
