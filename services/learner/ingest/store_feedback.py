"""Feedback into the store: every id kept, each slot held by its strongest statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select

from services.learner.forgetting.keeping_out import without_forgotten_feedback
from services.learner.ingest.locking import hold_experiences
from services.learner.state.experience_reader import is_held_thumb, slots_of
from services.learner.state.rows import Row
from services.learner.state.statements import SLOT, feedback_row, merging_insert, slot_row
from services.shared.domain.feedback import Feedback
from services.shared.store.erasing import erasing
from services.shared.store.tables import experiences, feedback, feedback_slots
from services.shared.store.upsert import insert_into, upsert


def store_feedback(connection: Connection, arrived: Sequence[Feedback]) -> None:
    """Adds what is new and decides the touched slots again. Sending the same again changes nothing.

    What was forgotten stays out: statements of forgotten people, and on their rollouts.
    """
    rows = [feedback_row(item) for item in without_forgotten_feedback(connection, arrived)]
    slots = sorted({tuple(row[name] for name in SLOT) for row in rows})
    touched = {(tenant, rollout_id) for tenant, rollout_id, _rater, _kind in slots}
    hold_experiences(connection, touched)
    if rows:
        with erasing(connection):  # of an id that comes again with other words only the stronger stay
            connection.execute(merging_insert(insert_into(connection, feedback)), rows)
    decide_slots(connection, slots)
    mark_rated(connection, touched)


def decide_slots(connection: Connection, slots: Iterable[tuple[str, ...]]) -> None:
    """Fills each slot (values of `SLOT`) with its strongest statement; one that nothing was said in stays away."""
    held = (_decide(connection, slot) for slot in slots)
    upsert(
        connection,
        feedback_slots,
        [row for row in held if row is not None],
        update=("feedback_id", "revision", "retracted", "digest", "accept_time", "up"),
    )


def mark_rated(connection: Connection, rollout_ids: Iterable[tuple[str, str]]) -> None:
    """Tells the experiences of (tenant, rollout id) whether a thumb holds a slot of theirs."""
    asked = sorted(set(rollout_ids))
    slots = slots_of(connection, sorted({rollout_id for _, rollout_id in asked}))
    rated = {(slot.tenant, slot.rollout_id) for slot in slots if is_held_thumb(slot)}
    rows = [
        {"rollout_id": rollout_id, "tenant": tenant, "rated": (tenant, rollout_id) in rated, "state": "open"}
        for tenant, rollout_id in asked
    ]
    upsert(connection, experiences, rows, update=("rated",))


def _decide(connection: Connection, slot: tuple[str, ...]) -> Row | None:
    """Who holds a slot: one step down an index, however many ids a rater has sent. None: nothing was said."""
    mine = [feedback.c[name] == value for name, value in zip(SLOT, slot, strict=True)]
    order = [feedback.c[name].desc() for name in ("revision", "retracted", "digest", "feedback_id")]
    holder = connection.execute(select(feedback).where(*mine).order_by(*order).limit(1)).one_or_none()
    return None if holder is None else slot_row(holder)
