"""Who may run: slots and KV tokens for so many responses, a bounded queue for the rest.

Users' requests come first. The others (the learner's sampling, gate, shadow) run in idle slots, plus a small guaranteed
floor, so that a busy service still learns. Within a class it is first come, first served, and the others never fill the
queue that users wait in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from services.shared.domain.errors import Busy
from services.shared.domain.rollout import Purpose

FLOOR_SHARE: Final = 8
"""One slot in so many (at least one) belongs to requests that are not a user's, if they want it."""
LEAST_RETRY_S: Final = 0.5
MOST_RETRY_S: Final = 30.0
_SMOOTHING: Final = 0.1


@dataclass(eq=False, kw_only=True)
class Ticket:
    """A place in the queue. `granted` becomes True when it may run, False when it was withdrawn."""

    user: bool
    tokens: int
    granted: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Admission:
    """Belongs to one event loop. Every granted ticket is to be given back by `release`."""

    def __init__(self, *, max_running: int, max_waiting: int, kv_tokens: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._free_tokens = kv_tokens
        self._floor = max(1, max_running // FLOOR_SHARE)
        self._users: deque[Ticket] = deque()
        self._others: deque[Ticket] = deque()
        self._running: set[Ticket] = set()
        self._mean_seconds = 1.0

    @property
    def running(self) -> int:
        """Tickets that run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Tickets that wait."""
        return len(self._users) + len(self._others)

    def ask(self, purpose: Purpose, tokens: int) -> Ticket:
        """A ticket, granted at once where there is room. Raises Busy, with a time to come again, where the queue is
        full: of users for a user, of all for the others."""
        ticket = Ticket(user=purpose is Purpose.USER, tokens=tokens)
        queue = self._users if ticket.user else self._others
        queue.append(ticket)
        self._grant()
        waiting = len(self._users) if ticket.user else self.waiting
        if not ticket.granted.done() and waiting > self._max_waiting:
            queue.remove(ticket)
            raise Busy(
                f"{self._max_waiting} responses wait already. Come again later, or add replicas.",
                reason="QUEUE_FULL",
                retry_after=self._retry_s(),
            )
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Takes a waiting ticket out of the queue. One that was granted is released by its holder."""
        if not ticket.granted.done():
            (self._users if ticket.user else self._others).remove(ticket)
            ticket.granted.set_result(False)
            self._grant()

    def release(self, ticket: Ticket, seconds: float) -> None:
        """Gives a granted ticket's room back; `seconds` is how long it was held."""
        self._running.remove(ticket)
        self._free_tokens += ticket.tokens
        self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)
        self._grant()

    def _grant(self) -> None:
        while (queue := self._next_queue()) and len(self._running) < self._max_running:
            if queue[0].tokens > self._free_tokens:
                return
            ticket = queue.popleft()
            self._running.add(ticket)
            self._free_tokens -= ticket.tokens
            ticket.granted.set_result(True)

    def _next_queue(self) -> deque[Ticket] | None:
        others_run = sum(not ticket.user for ticket in self._running)
        if self._others and (others_run < self._floor or not self._users):
            return self._others
        return self._users or None

    def _retry_s(self) -> float:
        rounds = self.waiting / self._max_running
        return min(MOST_RETRY_S, max(LEAST_RETRY_S, rounds * self._mean_seconds))
