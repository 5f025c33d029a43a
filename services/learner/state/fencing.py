"""Writes of one leader: each transaction begins by asking whether its epoch is still the newest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from services.shared.store.database import Database
from services.shared.store.leases import check_epoch

LEADER = "learner"
"""The lease whose epoch fences trainer and releaser."""


@contextmanager
def fenced_write(database: Database, epoch: int, *, alone: bool = True) -> Iterator[Connection]:
    """A writing transaction. Raises Fenced, and writes nothing, when a newer leader has taken over.

    `alone`: the epoch's other fenced writes wait for it, as whatever numbers announcements needs.
    """
    with database.write() as connection:
        check_epoch(connection, LEADER, epoch, alone=alone)
        yield connection
