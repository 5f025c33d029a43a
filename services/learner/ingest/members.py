"""Who ingests: every process keeps a lease under its own name, so that all of them see how many share the partitions.

Membership only decides how many partitions each takes; that two never write the same partition is held by the
partitions' own epochs (`positions`). So a list that is a moment old costs a little balance, never an event.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select

from services.shared.domain.errors import Fenced
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.leases import Leases
from services.shared.store.tables import leases

PREFIX = "ingest/"
"""Before an instance's id: the name of its lease."""

REPLACED = "INSTANCE_REPLACED"

FORGET_AFTER = timedelta(hours=1)
"""Names that have been silent for so long are removed; pods may get a new one with every start."""


class Members:
    """One process's membership. `holder` is its stable name (`learner.instance_id`)."""

    def __init__(self, database: Database, *, clock: Clock, holder: str, ttl_s: float) -> None:
        self._database = database
        self._clock = clock
        self._holder = holder
        self._leases = Leases(database, clock=clock, holder=holder, ttl_s=ttl_s)
        self._epoch = 0

    def keep(self) -> tuple[str, ...]:
        """Joins at the first call, stays at the later ones. The members that live, sorted, this one among them.

        Raises Fenced (`REPLACED`) when another process has started under the same name.
        """
        if self._epoch == 0:
            self._epoch = self._leases.take(PREFIX + self._holder)
        else:
            self._renew()
        with self._database.read() as connection:
            living = leases.c.name.startswith(PREFIX, autoescape=True), leases.c.until > self._clock()
            holders = connection.scalars(select(leases.c.holder).where(*living, leases.c.holder != ""))
            return tuple(sorted({*holders, self._holder}))

    def leave(self) -> None:
        """The others may share what this one had. Nothing where it never joined."""
        if self._epoch:
            self._leases.give_back(PREFIX + self._holder, self._epoch)
            self._epoch = 0

    def forget_the_silent(self) -> None:
        """Removes the names of members that are long gone."""
        silent = leases.c.until < self._clock() - FORGET_AFTER
        with self._database.write() as connection:
            connection.execute(delete(leases).where(leases.c.name.startswith(PREFIX, autoescape=True), silent))

    def _renew(self) -> None:
        try:
            self._leases.renew(PREFIX + self._holder, self._epoch)
        except Fenced as error:
            raise Fenced(
                f"another process has taken over the name {self._holder!r}. Two ingest processes may not share one:"
                " stop one of them, or set THUMBLOOP_LEARNER__INSTANCE_ID apart.",
                reason=REPLACED,
            ) from error
