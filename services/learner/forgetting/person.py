"""What the store holds of a person, by id: found before anything is deleted, in the same transaction.

A person's *rollouts* are those drawn for one of their pseudonyms. Of *statements* three sorts go: the person's own,
on whichever answer; anybody's on the person's rollouts (they quote or judge what is deleted, and mean nothing without
it); and comparisons of others that name one of the person's rollouts as the worse answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, TextClause, select

from services.learner.forgetting.tombstones import Subject, forgotten_ids, rollouts_of_orders
from services.shared.domain.feedback import Comparison
from services.shared.store.tables import feedback, feedback_slots, rollouts
from services.shared.store.tables.feedback import OF_COMPARISONS
from services.shared.store.upsert import chunks


class Statement(NamedTuple):
    """A row of `feedback` by its key, the tenant apart."""

    rollout_id: str
    rater_id: str
    kind: str
    feedback_id: str


@dataclass(frozen=True, kw_only=True)
class Person:
    """`earlier_rollout_ids`: of former orders for the same pseudonyms; gone already, but named in lineages."""

    tenant: str
    rater_ids: tuple[str, ...]
    rollout_ids: tuple[str, ...]
    statements: tuple[Statement, ...]
    earlier_rollout_ids: frozenset[str] = frozenset()

    @property
    def known_rollout_ids(self) -> frozenset[str]:
        """All of them, deleted now or before."""
        return self.earlier_rollout_ids | frozenset(self.rollout_ids)


def find_person(connection: Connection, *, tenant: str, rater_ids: Sequence[str]) -> Person:
    """All that is stored under these pseudonyms."""
    of_theirs = (rollouts.c.tenant == tenant, rollouts.c.rater_id.in_(rater_ids))
    rollout_ids = tuple(connection.scalars(select(rollouts.c.rollout_id).where(*of_theirs).order_by("rollout_id")))
    statements = set(_said_by(connection, tenant, rater_ids)) | set(said_of(connection, tenant, rollout_ids))
    before = forgotten_ids(connection, tenant=tenant, subject=Subject.RATER, ids=rater_ids)
    earlier = rollouts_of_orders(connection, tenant=tenant, control_ids=before.values())
    return Person(
        tenant=tenant,
        rater_ids=tuple(rater_ids),
        rollout_ids=rollout_ids,
        statements=tuple(sorted(statements)),
        earlier_rollout_ids=frozenset(earlier),
    )


def said_of(connection: Connection, tenant: str, rollout_ids: Sequence[str]) -> Iterable[Statement]:
    """What anybody said of these rollouts, comparisons that name them as the worse answer among it."""
    for some in chunks(rollout_ids):
        yield from _statements(connection, feedback.c.tenant == tenant, feedback.c.rollout_id.in_(some))
        worse = [asdict(Comparison(rejected_rollout_id=rollout_id)) for rollout_id in some]
        yield from _statements(connection, feedback.c.tenant == tenant, OF_COMPARISONS, feedback.c.body.in_(worse))


def _said_by(connection: Connection, tenant: str, rater_ids: Sequence[str]) -> Iterable[Statement]:
    """By way of the slots, whose key begins with the rater; every statement has one."""
    slots = select(feedback_slots.c.rollout_id).where(
        feedback_slots.c.tenant == tenant, feedback_slots.c.rater_id.in_(rater_ids)
    )
    for some in chunks(sorted(set(connection.scalars(slots)))):
        yield from _statements(
            connection,
            feedback.c.tenant == tenant,
            feedback.c.rollout_id.in_(some),
            feedback.c.rater_id.in_(rater_ids),
        )


def _statements(connection: Connection, *where: ColumnElement[bool] | TextClause) -> Iterable[Statement]:
    key: tuple[Any, ...] = tuple(feedback.c[name] for name in Statement._fields)
    for row in connection.execute(select(*key).where(*where)):
        yield Statement(*row)
