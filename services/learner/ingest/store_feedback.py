"""Feedback into the store: every id kept, each slot held by its strongest statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, and_, exists, select

from services.learner.state.rows import Row
from services.learner.state.statements import SLOT, feedback_row, merging_insert, slot_row
from services.shared.domain.feedback import Feedback, FeedbackKind
from services.shared.store.tables import experiences, feedback, feedback_slots
from services.shared.store.upsert import insert_into, upsert


def store_feedback(connection: Connection, arrived: Sequence[Feedback]) -> None:
    """Adds what is new and decides the touched slots again. Sending the same again changes nothing."""
    rows = [feedback_row(item) for item in arrived]
    if rows:
        connection.execute(merging_insert(insert_into(connection, feedback)), rows)
    slots = sorted({tuple(row[name] for name in SLOT) for row in rows})
    upsert(
        connection,
        feedback_slots,
        [_decide(connection, slot) for slot in slots],
        update=("feedback_id", "revision", "retracted", "digest", "accept_time", "up"),
    )
    mark_rated(connection, {(tenant, rollout_id) for tenant, rollout_id, _rater, _kind in slots})


def mark_rated(connection: Connection, rollout_ids: Iterable[tuple[str, str]]) -> None:
    """Tells the experiences of (tenant, rollout id) whether a thumb holds a slot of theirs."""
    rows = []
    for tenant, rollout_id in sorted(rollout_ids):
        thumb = exists().where(
            and_(
                feedback_slots.c.rollout_id == rollout_id,
                feedback_slots.c.kind == FeedbackKind.THUMB.value,
                feedback_slots.c.retracted.is_(False),
                feedback_slots.c.quarantined.is_(False),
            )
        )
        rated = bool(connection.scalar(select(thumb)))
        rows.append({"rollout_id": rollout_id, "tenant": tenant, "rated": rated, "state": "open"})
    upsert(connection, experiences, rows, update=("rated",))


def _decide(connection: Connection, slot: tuple[str, ...]) -> Row:
    """Who holds a slot: one step down an index, however many ids a rater has sent."""
    mine = [feedback.c[name] == value for name, value in zip(SLOT, slot, strict=True)]
    order = [feedback.c[name].desc() for name in ("revision", "retracted", "digest", "feedback_id")]
    return slot_row(connection.execute(select(feedback).where(*mine).order_by(*order).limit(1)).one())
