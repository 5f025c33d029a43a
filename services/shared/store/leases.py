"""Leases with epochs: who may write, so that a holder that was thought dead can do no harm.

Taking a lease raises its epoch. Every write of a holder asks in its own transaction whether its epoch is still the
newest, so a late writer is told (`Fenced`) and changes nothing; no clock decides that. Time only decides when a
lease may be taken from a holder that says nothing any more. The same holder (a restarted process) takes its own
lease at once.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, select, update

from services.shared.domain.errors import Fenced, Unavailable
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.tables import leases
from services.shared.store.upsert import insert_missing


class Leases:
    """Takes, keeps and gives back leases for one holder (a replica's stable name)."""

    def __init__(self, database: Database, *, clock: Clock, holder: str, ttl_s: float) -> None:
        self._database = database
        self._clock = clock
        self._holder = holder
        self._ttl = timedelta(seconds=ttl_s)

    def take(self, name: str) -> int:
        """The new epoch. Raises Unavailable with `retry_after` while another holder's lease runs."""
        now = self._clock()
        with self._database.write() as connection:
            blank = {"name": name, "epoch": 0, "holder": "", "until": now}
            insert_missing(connection, leases, [blank])
            lease = connection.execute(select(leases).where(leases.c.name == name).with_for_update()).one()
            if lease.holder not in ("", self._holder) and lease.until > now:
                remaining = (lease.until - now).total_seconds()
                raise Unavailable(
                    f"{lease.holder} holds the lease {name!r} for {remaining:.1f} s more; wait, or stop that process.",
                    reason="LEASE_HELD",
                    retry_after=remaining,
                )
            values = {"epoch": lease.epoch + 1, "holder": self._holder, "until": now + self._ttl}
            connection.execute(update(leases).where(leases.c.name == name).values(values))
        return int(lease.epoch) + 1

    def renew(self, name: str, epoch: int) -> None:
        """Keeps a lease. Raises Fenced when it has been taken."""
        values = {"holder": self._holder, "until": self._clock() + self._ttl}
        with self._database.write() as connection:
            kept = connection.execute(
                update(leases).where(leases.c.name == name, leases.c.epoch == epoch).values(values)
            )
            if not kept.rowcount:
                check_epoch(connection, name, epoch)

    def give_back(self, name: str, epoch: int) -> None:
        """Lets another holder take the lease at once; nothing where it is no longer ours."""
        with self._database.write() as connection:
            connection.execute(
                update(leases)
                .where(leases.c.name == name, leases.c.epoch == epoch)
                .values(holder="", until=self._clock())
            )


def check_epoch(connection: Connection, name: str, epoch: int, *, alone: bool = True) -> None:
    """Raises Fenced unless `epoch` is the newest of the lease; holds it so until the transaction ends.

    `alone`: of all transactions that ask, one at a time goes on. Otherwise they go on side by side (on PostgreSQL), and
    only taking the lease waits for them.
    """
    newest = connection.scalar(select(leases.c.epoch).where(leases.c.name == name).with_for_update(read=not alone))
    if newest != epoch:
        raise Fenced(
            f"epoch {epoch} of {name!r} is over, the newest is {newest or 0}: another process has taken over. Stop this"
            " one."
        )
