"""Rollouts that come after their person was forgotten: drawn or read late, or read again.

Their scores and what was said of them may have come before them, when nobody could know whose they were. So a
rollout that is kept out also gets a tombstone of its own, and takes what is there with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from services.learner.forgetting.keeping_out import by_tenant
from services.learner.forgetting.person import said_of
from services.learner.forgetting.rows import delete_rows
from services.learner.forgetting.tombstones import Subject, forgotten_ids, write_tombstones
from services.shared.domain.rollout import Rollout


def without_forgotten_rollouts(connection: Connection, arrived: Sequence[Rollout]) -> list[Rollout]:
    """Without forgotten rollouts and those of forgotten people."""
    gone: set[tuple[str, str]] = set()
    for tenant, some in by_tenant(arrived):
        ids = (rollout.rollout_id for rollout in some)
        known = forgotten_ids(connection, tenant=tenant, subject=Subject.ROLLOUT, ids=ids)
        raters = (rollout.rater_id for rollout in some)
        orders = forgotten_ids(connection, tenant=tenant, subject=Subject.RATER, ids=raters)
        late = [rollout for rollout in some if rollout.rater_id in orders and rollout.rollout_id not in known]
        if late:
            _bury(connection, tenant, late, orders)
        gone |= {(tenant, rollout_id) for rollout_id in (*known, *(rollout.rollout_id for rollout in late))}
    return [rollout for rollout in arrived if (rollout.meta.tenant, rollout.rollout_id) not in gone]


def _bury(connection: Connection, tenant: str, late: Sequence[Rollout], orders: Mapping[str, str]) -> None:
    """`orders`: by pseudonym."""
    for rollout in late:
        write_tombstones(
            connection,
            tenant=tenant,
            subject=Subject.ROLLOUT,
            ids=(rollout.rollout_id,),
            control_id=orders[rollout.rater_id],
            now=rollout.end_time,
        )
    rollout_ids = sorted({rollout.rollout_id for rollout in late})
    statements = set(said_of(connection, tenant, rollout_ids))
    delete_rows(connection, tenant=tenant, rollout_ids=rollout_ids, statements=statements)
