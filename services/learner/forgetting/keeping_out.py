"""What ingest leaves out because it was forgotten: one look a batch, for the batch's own ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection, select

from services.learner.forgetting.tombstones import Subject, forgotten_ids
from services.shared.bus.interface import Record
from services.shared.bus.traces import ids_in
from services.shared.domain.events import EventMeta
from services.shared.domain.feedback import Comparison, Feedback
from services.shared.domain.score import Score
from services.shared.store.database import Database
from services.shared.store.tables import tombstones


class _Event(Protocol):
    @property
    def meta(self) -> EventMeta: ...


EventT = TypeVar("EventT", bound=_Event)


def without_forgotten_feedback(connection: Connection, arrived: Sequence[Feedback]) -> list[Feedback]:
    """Without statements of forgotten people, on forgotten rollouts, or comparing with one."""
    gone: set[tuple[str, str, str]] = set()
    for tenant, some in by_tenant(arrived):
        named = [rollout_id for item in some for rollout_id in _named_rollouts(item)]
        rollouts = forgotten_ids(connection, tenant=tenant, subject=Subject.ROLLOUT, ids=named)
        raters = forgotten_ids(connection, tenant=tenant, subject=Subject.RATER, ids=(item.rater_id for item in some))
        gone |= {(tenant, str(Subject.ROLLOUT), rollout_id) for rollout_id in rollouts}
        gone |= {(tenant, str(Subject.RATER), rater_id) for rater_id in raters}
    return [item for item in arrived if gone.isdisjoint(_names(item))]


def without_forgotten_scores(connection: Connection, arrived: Sequence[Score]) -> list[Score]:
    """Without scores of forgotten rollouts."""
    gone: set[tuple[str, str]] = set()
    for tenant, some in by_tenant(arrived):
        ids = (score.rollout_id for score in some)
        rollouts = forgotten_ids(connection, tenant=tenant, subject=Subject.ROLLOUT, ids=ids)
        gone |= {(tenant, rollout_id) for rollout_id in rollouts}
    return [score for score in arrived if (score.meta.tenant, score.rollout_id) not in gone]


class _Unreadable(Protocol):
    @property
    def record(self) -> Record: ...


UnreadableT = TypeVar("UnreadableT", bound=_Unreadable)


def without_forgotten_records(database: Database, unreadable: Sequence[UnreadableT]) -> list[UnreadableT]:
    """Without records that name somebody or something forgotten: what is read again must not become a dead letter
    again. Nobody knows whose tenant's they are, so all tenants' tombstones count.
    """
    if not unreadable:
        return []
    named = [ids_in(item.record) for item in unreadable]
    gone: set[str] = set()
    with database.read() as connection:
        for tenant in connection.scalars(select(tombstones.c.tenant).distinct()).all():
            for subject in (Subject.RATER, Subject.ROLLOUT):
                gone |= forgotten_ids(connection, tenant=tenant, subject=subject, ids=set().union(*named)).keys()
    return [item for item, ids in zip(unreadable, named, strict=True) if gone.isdisjoint(ids)]


def by_tenant(events: Sequence[EventT]) -> Iterator[tuple[str, list[EventT]]]:
    """Events of each tenant, in their order."""
    groups: dict[str, list[EventT]] = {}
    for event in events:
        groups.setdefault(event.meta.tenant, []).append(event)
    yield from sorted(groups.items())


def _names(item: Feedback) -> set[tuple[str, str, str]]:
    tenant = item.meta.tenant
    rollouts = {(tenant, str(Subject.ROLLOUT), rollout_id) for rollout_id in _named_rollouts(item)}
    return rollouts | {(tenant, str(Subject.RATER), item.rater_id)}


def _named_rollouts(item: Feedback) -> tuple[str, ...]:
    return (item.rollout_id, item.body.rejected_rollout_id) if isinstance(item.body, Comparison) else (item.rollout_id,)
