"""Which replicas live: an order to forget waits for them.

Every room asks the learner for the keys at intervals, and says who it is. What is heard is noted in the store, for all
processes of the learner and across restarts. A replica that has been silent for `SEEN_WITHIN` is not waited for; when
it comes back it reads all orders from the first, as every replica does at its start.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from services.learner.state.fencing import LEADER
from services.learner.trainer.post import NAME as POST
from services.shared.domain.events import Clock
from services.shared.releases.background_sender import BackgroundSender
from services.shared.store.database import Database
from services.shared.store.tables import acknowledgements, leases, replicas
from services.shared.store.upsert import upsert

SEEN_WITHIN = timedelta(seconds=60)
NOTED_EVERY = timedelta(seconds=15)
"""What a replica says meanwhile is not written down."""
FORGOTTEN_AFTER = timedelta(days=1)
"""Pods may get a new name with every start. What a forgotten one said of releases goes with it; its word that an order
was carried out stays with the order."""


class Replicas:
    """`note` is called by one thread, `living` by any. `start` and `stop` as of every part with a thread."""

    def __init__(self, database: Database, *, clock: Clock, interval_s: float) -> None:
        """`interval_s`: how often rooms ask, in seconds."""
        self._database = database
        self._clock = clock
        self._seen_within = max(SEEN_WITHIN, timedelta(seconds=3 * interval_s))
        self._begun = clock()
        self._noted: dict[str, datetime] = {}
        self._sender = BackgroundSender[str, str]("note-replicas", self._write)

    def start(self) -> None:
        """Begins to write down what is noted."""
        self._sender.start()

    def stop(self) -> None:
        """Ends it. Twice is once."""
        self._sender.stop(5.0)

    def note(self, replica_id: str) -> None:
        """A replica has asked for something. Never blocks; "" is nobody."""
        now = self._clock()
        if not replica_id or now - self._noted.get(replica_id, now - NOTED_EVERY) < NOTED_EVERY:
            return
        self._noted = {name: time for name, time in self._noted.items() if now - time < NOTED_EVERY} | {replica_id: now}
        self._sender.offer(replica_id, replica_id)

    def living(self) -> Set[str]:
        """Replicas that were heard lately, and a trainer that has a process of its own. Raises Unavailable.

        While this process is young it may not have been there to hear them: then whoever was heard in the last day.
        """
        now = self._clock()
        young = now - self._begun < self._seen_within
        since = now - (FORGOTTEN_AFTER if young else self._seen_within)
        with self._database.read() as connection:
            heard = set(connection.scalars(select(replicas.c.replica_id).where(replicas.c.seen_time > since)))
            held = leases.c.name.in_((LEADER, POST)), leases.c.holder != "", leases.c.until > now
            holders = {row.name: row.holder for row in connection.execute(select(leases).where(*held))}
        trainer = holders.get(POST, "")
        return heard | ({trainer} if trainer not in ("", holders.get(LEADER)) else set())

    def _write(self, replica_id: str) -> None:
        now = self._clock()
        with self._database.write() as connection:
            upsert(connection, replicas, [{"replica_id": replica_id, "seen_time": now}], update=("seen_time",))
            connection.execute(delete(replicas).where(replicas.c.seen_time < now - FORGOTTEN_AFTER))
            gone = acknowledgements.c.replica_id.not_in(select(replicas.c.replica_id))
            old = acknowledgements.c.acknowledge_time < now - FORGOTTEN_AFTER
            connection.execute(delete(acknowledgements).where(old, gone))
