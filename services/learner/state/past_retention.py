"""The floor under the store: what belongs to a rollout that was minted before it is past retention, for good.

A rollout id is a UUIDv7, so it says when it was minted, and ids are in the order of time. One id is therefore enough to
remember all that has been deleted: everything below it. Ingest leaves out whatever comes below the floor, so what the
log brings again (it may be read again from its start) is neither stored nor trained a second time. The floor never
sinks.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from services.shared.store.tables import flags
from services.shared.store.upsert import upsert

_NAME = "rollouts_kept_since"


def read_floor(connection: Connection) -> str:
    """Rollout ids below it are past retention; "": none is."""
    return connection.scalar(select(flags.c.value).where(flags.c.name == _NAME)) or ""


def raise_floor(connection: Connection, to: str, *, now: datetime) -> str:
    """Where the floor is then: `to`, or where it was, whichever is higher. The caller holds off whoever stores."""
    floor = read_floor(connection)
    if to <= floor:
        return floor
    row = {"name": _NAME, "value": to, "reason": "retention", "change_time": now}
    upsert(connection, flags, [row], update=("value", "reason", "change_time"))
    return to
