"""One leader: whoever holds the newest epoch of the learner's lease may claim, commit and announce.

The process with the releaser leads. A trainer in a process of its own *follows*: it works under the leader's epoch, and
a leader that starts anew voids what it has claimed, as if both were one process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import select

from services.learner.state.fencing import LEADER
from services.shared.domain.errors import Fenced, Unavailable
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.leases import Leases
from services.shared.store.tables import leases
from services.shared.telemetry.log import get_logger

_LOOK_S = 0.5
_JOIN_S = 10.0

_log = get_logger(role="releaser")


class Leadership:
    """The leader's lease (or another of this process), for one holder (a replica's stable name)."""

    def __init__(self, database: Database, *, clock: Clock, holder: str, ttl_s: float, name: str = LEADER) -> None:
        self._database = database
        self._name = name
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
                self.epoch = self._leases.take(self._name)
                return self.epoch
            except Unavailable as held:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise
                time.sleep(min(held.retry_after or 1.0, remaining, 1.0))

    def follow(self, timeout_s: float) -> int:
        """The epoch of another process that leads now. Raises Unavailable when none does within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._database.read() as connection:
                leading = leases.c.name == self._name, leases.c.holder != "", leases.c.until > self._clock()
                epoch = connection.scalar(select(leases.c.epoch).where(*leading))
            if epoch is not None:
                return int(epoch)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"no process with the role `releaser` has led for {timeout_s:g} s; start one on this store.",
                    reason="NO_LEADER",
                    retry_after=1.0,
                )
            time.sleep(_LOOK_S)

    def keep(self) -> None:
        """Renews where it is time. Raises Fenced when another has taken over."""
        now = self._clock()
        if self._next is None or now >= self._next:
            self._leases.renew(self._name, self.epoch)
            self._next = now + self._pause

    @contextmanager
    def kept(self, *, look_s: float = _LOOK_S) -> Iterator[None]:
        """Keeps it in a thread meanwhile, for as long as nobody who calls `keep` runs yet. That another has taken over,
        the next `keep` tells."""
        ended = threading.Event()
        thread = threading.Thread(target=self._keep_until, args=(ended, look_s), name="keep-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_JOIN_S)

    def _keep_until(self, ended: threading.Event, look_s: float) -> None:
        while not ended.wait(look_s):
            try:
                self.keep()
            except Fenced:
                return
            except Unavailable as error:
                _log.warning("lease_waits", reason=error.reason, error=error.message)

    def give_back(self) -> None:
        """Lets another lead at once."""
        self._leases.give_back(self._name, self.epoch)
