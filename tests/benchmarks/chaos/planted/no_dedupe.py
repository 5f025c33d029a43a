"""The learner appends every feedback event it reads, as to a table without a key: the same again makes a second row.

The real table has its key, so a second arrival goes in under an id of its own. At-least-once delivery does the rest:
clients, gateway and producer all send again what they are not sure of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as changed

from sqlalchemy import Connection, select

from services.learner.ingest import batch
from services.learner.main import run
from services.shared.domain.feedback import Feedback
from services.shared.settings import load_settings
from services.shared.store.tables import feedback as table
from tests.benchmarks.chaos.planted.seam import replace

Store = Callable[[Connection, Sequence[Feedback]], None]


def appending(store: Store) -> Store:
    """`store_feedback` that takes what it has already for something new."""

    def wrong(connection: Connection, arrived: Sequence[Feedback]) -> None:
        for item in arrived:
            known = select(table.c.feedback_id).where(table.c.feedback_id == item.feedback_id)
            is_new = connection.scalar(known.limit(1)) is None
            again = changed(item, feedback_id=f"{item.feedback_id[:24]}+{item.meta.event_id}")
            store(connection, [item if is_new else again])

    return wrong


if __name__ == "__main__":
    replace(batch, "store_feedback", appending)
    run(load_settings())
