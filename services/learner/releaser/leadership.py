"""One leader: whoever holds the newest epoch of the learner's lease may claim, commit and announce."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from services.learner.state.fencing import LEADER
from services.shared.domain.errors import Unavailable
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.leases import Leases


class Leadership:
    """The leader's lease, for one holder (a replica's stable name)."""

    def __init__(self, database: Database, *, clock: Clock, holder: str, ttl_s: float) -> None:
        self._leases = Leases(database, clock=clock, holder=holder, ttl_s=ttl_s)
        self._clock = clock
        self._pause = timedelta(seconds=ttl_s / 3)
        self._next: datetime | None = None
        self.epoch = 0
        """0: not taken yet."""

    def take(self, timeout_s: float) -> int:
        """The new epoch: at once after a restart of the same holder, else when the other's lease has run out.

        Raises Unavailable when the other goes on renewing it for `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.epoch = self._leases.take(LEADER)
                return self.epoch
            except Unavailable as held:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise
                time.sleep(min(held.retry_after or 1.0, remaining, 1.0))

    def keep(self) -> None:
        """Renews where it is time. Raises Fenced when another has taken over."""
        now = self._clock()
        if self._next is None or now >= self._next:
            self._leases.renew(LEADER, self.epoch)
            self._next = now + self._pause

    def give_back(self) -> None:
        """Lets another lead at once."""
        self._leases.give_back(LEADER, self.epoch)
