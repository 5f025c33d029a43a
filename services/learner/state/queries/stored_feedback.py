"""Which statements the store has: what a gateway whose log may lose its tail asks before it lets go of its own copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, or_, select, tuple_

from services.learner.state.past_retention import past_retention
from services.shared.domain.errors import InvalidInput
from services.shared.domain.feedback import FeedbackKind
from services.shared.store.database import Database
from services.shared.store.tables import feedback, tombstones

MOST_REFERENCES = 1_000


class FeedbackReference(NamedTuple):
    """Names a statement within its tenant: its slot and its id."""

    rollout_id: str
    rater_id: str
    kind: FeedbackKind
    feedback_id: str


def stored_feedback(database: Database, *, tenant: str, references: Sequence[FeedbackReference]) -> list[bool]:
    """For each reference, in their order, whether the store has the statement or never wants it, since its rater or
    its rollout was forgotten or the rollout is past retention. Raises InvalidInput for none or more than 1,000.
    """
    if not 1 <= len(references) <= MOST_REFERENCES:
        raise InvalidInput(
            f"{len(references)} references were sent; send 1 to {MOST_REFERENCES} a call.", field="references"
        )
    asked = [(one.rollout_id, one.rater_id, one.kind.value, one.feedback_id) for one in references]
    rows = stored_rows(tenant, asked)
    forgotten = select(tombstones.c.subject, tombstones.c.subject_id).where(
        tombstones.c.tenant == tenant,
        or_(
            (tombstones.c.subject == "rater") & tombstones.c.subject_id.in_({one.rater_id for one in references}),
            (tombstones.c.subject == "rollout") & tombstones.c.subject_id.in_({one.rollout_id for one in references}),
        ),
    )
    with database.read() as connection:
        stored: set[tuple[str, ...]] = {tuple(row) for row in connection.execute(rows)}
        gone: set[tuple[str, ...]] = {tuple(row) for row in connection.execute(forgotten)}
        gone |= {("rollout", rollout_id) for rollout_id in past_retention(connection, (key[0] for key in asked))}
    return [key in stored or ("rater", key[1]) in gone or ("rollout", key[0]) in gone for key in asked]


def stored_rows(tenant: str, asked: Sequence[tuple[str, str, str, str]]) -> Select[Any]:
    """Those of (rollout id, rater id, kind, feedback id) that have a row. The rollouts are named apart as well, since
    SQLite seeks by single columns alone, and would read all rows of the tenant.
    """
    columns = (feedback.c.rollout_id, feedback.c.rater_id, feedback.c.kind, feedback.c.feedback_id)
    return select(*columns).where(
        feedback.c.tenant == tenant,
        feedback.c.rollout_id.in_({one[0] for one in asked}),
        tuple_(*columns).in_(asked),
    )
