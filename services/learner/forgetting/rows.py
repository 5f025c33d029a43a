"""Deletes a person's rows, and mends what other people's rows had drawn from them.

Afterwards the store is as if the person's events had never come: the same dump as a replay of the log gives with the
tombstones in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Exists, Table, delete, exists, select

from services.learner.forgetting.person import Statement
from services.learner.ingest.store_feedback import decide_slots, mark_rated
from services.learner.state.deletion import delete_each, delete_rollouts
from services.learner.state.statements import SLOT
from services.shared.store.erasing import erasing
from services.shared.store.tables import experiences, feedback, feedback_slots, scores
from services.shared.store.upsert import chunks


def delete_rows(
    connection: Connection, *, tenant: str, rollout_ids: Sequence[str], statements: Iterable[Statement]
) -> None:
    """Deletes the rollouts with all that hangs on them, and the statements; other experiences learn what is left."""
    gone = list(statements)
    with erasing(connection):
        _delete_statements(connection, tenant, gone)
        delete_rollouts(connection, [(rollout_id, tenant) for rollout_id in rollout_ids])
    others = sorted({statement.rollout_id for statement in gone} - set(rollout_ids))
    mark_rated(connection, {(tenant, rollout_id) for rollout_id in others})
    _delete_empty_experiences(connection, tenant, others)


def _delete_statements(connection: Connection, tenant: str, gone: Sequence[Statement]) -> None:
    """Statements, then their slots; a slot for which another statement is left is decided again."""
    slots = sorted({(tenant, said.rollout_id, said.rater_id, said.kind) for said in gone})
    delete_each(connection, feedback, ("tenant", *Statement._fields), [(tenant, *statement) for statement in gone])
    delete_each(connection, feedback_slots, SLOT, slots)
    decide_slots(connection, slots)


def _delete_empty_experiences(connection: Connection, tenant: str, rollout_ids: Sequence[str]) -> None:
    """Experiences that stood for statements alone, whose rollout has not come and which nothing is left of."""
    for some in chunks(rollout_ids):
        nothing = (
            experiences.c.tenant == tenant,
            experiences.c.rollout_id.in_(some),
            experiences.c.end_time.is_(None),
            ~_has(feedback_slots),
            ~_has(scores),
        )
        connection.execute(delete(experiences).where(*nothing))


def _has(table: Table) -> Exists:
    """The experience's rollout has a row there."""
    same = (table.c.tenant == experiences.c.tenant, table.c.rollout_id == experiences.c.rollout_id)
    return exists(select(table.c.rollout_id).where(*same))
