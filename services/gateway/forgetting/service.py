"""Has the learner forget a person, whom the gateway alone can name: by their pseudonyms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from services.gateway.identity import MAX_USER_CHARS, Identifier
from services.shared.domain.errors import InvalidInput
from services.shared.domain.events import NewId

FORGET_TIMEOUT_S = 60.0
"""A transaction over all that somebody ever said."""
LOOK_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What the learner deleted at once. `versions`: releases that learned from the person, oldest first."""

    control_id: str
    rollouts: int
    feedback: int
    versions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`waiting_for`: the learner and replicas that live, as far as they have not said that they carried it out."""

    control_id: str
    publish_time: datetime | None
    acknowledged_by: tuple[str, ...]
    waiting_for: tuple[str, ...]


class ForgettingLearner(Protocol):
    """The learner's side."""

    async def forget(self, *, tenant: str, rater_ids: tuple[str, ...], control_id: str, timeout_s: float) -> Forgotten:
        """Raises InvalidInput, Conflict, Unavailable, DeadlineExceeded."""

    async def control(self, control_id: str, *, timeout_s: float) -> Progress:
        """How far an order is, as the learner knows. Raises NotFound, Unavailable."""


class ForgettingService:
    """Used on the control port alone."""

    def __init__(
        self, *, identifier: Identifier, learner: ForgettingLearner, replica_id: str, tenant: str, new_id: NewId
    ) -> None:
        self._identifier = identifier
        self._learner = learner
        self._replica_id = replica_id
        self.tenant = tenant
        """The deployment's own."""
        self._new_id = new_id

    async def forget(self, user: str, *, tenant: str, control_id: str) -> Forgotten:
        """Deletes the person's data in the store and orders all others to do the same. The same `control_id` again is
        the same order; "" makes a new one.
        """
        if not user or len(user) > MAX_USER_CHARS:
            raise InvalidInput(
                f"The user's name must have 1 to {MAX_USER_CHARS} characters, as in the chat request's 'user'.",
                reason="BAD_USER",
                field="user",
            )
        return await self._learner.forget(
            tenant=tenant,
            rater_ids=self._identifier.rater_ids(user, tenant=tenant),
            control_id=control_id or self._new_id(),
            timeout_s=FORGET_TIMEOUT_S,
        )

    async def progress(self, control_id: str) -> Progress:
        """How far an order has been carried out. Raises NotFound, Unavailable."""
        progress = await self._learner.control(control_id, timeout_s=LOOK_TIMEOUT_S)
        waiting = {*progress.waiting_for, self._replica_id} - {*progress.acknowledged_by}  # this one lives, for certain
        return replace(progress, waiting_for=tuple(sorted(waiting)))
