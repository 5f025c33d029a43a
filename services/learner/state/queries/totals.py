"""How much the store holds, for status."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from services.shared.domain.feedback import FeedbackKind
from services.shared.store.database import Database
from services.shared.store.tables import dead_letters, experiences, feedback_slots, rollouts


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts of rows. `thumbs_*` and `slots` of slots that are filled."""

    rollouts: int
    slots: int
    thumbs_up: int
    thumbs_down: int
    used: int
    stale: int
    waiting_for_rollout: int
    dead_letters: int


def read_totals(database: Database) -> Totals:
    """One consistent look."""
    with database.read() as connection:
        by_state = select(experiences.c.state, func.count().label("rows")).group_by(experiences.c.state)
        states: dict[str, int] = {row.state: row.rows for row in connection.execute(by_state)}
        thumbs = _thumbs(connection)
        filled = select(func.count()).select_from(feedback_slots).where(feedback_slots.c.retracted.is_(False))
        dangling = select(func.count()).select_from(experiences).where(experiences.c.end_time.is_(None))
        return Totals(
            rollouts=connection.scalar(select(func.count()).select_from(rollouts)) or 0,
            slots=connection.scalar(filled) or 0,
            thumbs_up=thumbs.get(True, 0),
            thumbs_down=thumbs.get(False, 0),
            used=states.get("used", 0),
            stale=states.get("stale", 0),
            waiting_for_rollout=connection.scalar(dangling) or 0,
            dead_letters=connection.scalar(select(func.coalesce(func.sum(dead_letters.c.count), 0))) or 0,
        )


def _thumbs(connection: Connection) -> dict[bool, int]:
    query = (
        select(feedback_slots.c.up, func.count())
        .where(feedback_slots.c.kind == FeedbackKind.THUMB.value, feedback_slots.c.retracted.is_(False))
        .group_by(feedback_slots.c.up)
    )
    return {bool(up): count for up, count in connection.execute(query)}
