"""The floor under the store: what belongs to a rollout that was minted before it is past retention, for good.

A rollout id is a UUIDv7, so it says when it was minted, and ids are in the order of time. One id is therefore enough to
remember all that has been deleted: everything below it. Ingest leaves out what comes below the floor, so what the log
brings again (it may be read again from its start) is neither stored nor trained a second time. The floor never
sinks.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, select

from services.shared.store.tables import experiences, flags
from services.shared.store.upsert import chunks, upsert

_NAME = "rollouts_kept_since"


def read_floor(connection: Connection) -> str:
    """Rollout ids below it are past retention; "": none is."""
    return connection.scalar(select(flags.c.value).where(flags.c.name == _NAME)) or ""


def past_retention(connection: Connection, rollout_ids: Iterable[str]) -> set[str]:
    """Those below the floor, but for rollouts that are kept longer: of what still is there, the log may say more.

    Whoever stores holds the experiences meanwhile (`lock_experiences`), since retention may be about to delete them.
    """
    floor = read_floor(connection)
    below = sorted({rollout_id for rollout_id in rollout_ids if rollout_id < floor})
    kept: set[str] = set()
    for some in chunks(below):
        kept |= set(connection.scalars(select(experiences.c.rollout_id).where(experiences.c.rollout_id.in_(some))))
    return set(below) - kept


def raise_floor(connection: Connection, to: str, *, now: datetime) -> str:
    """Where the floor is then: `to`, or where it was, whichever is higher. The caller holds off whoever stores."""
    floor = read_floor(connection)
    if to <= floor:
        return floor
    row = {"name": _NAME, "value": to, "reason": "retention", "change_time": now}
    upsert(connection, flags, [row], update=("value", "reason", "change_time"))
    return to
