"""When users got the first token of a policy release.

It is asked of the rollouts; before the oldest of them are deleted, the release's own row takes it over.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, case, func, or_, select, update

from services.shared.domain.rollout import Purpose
from services.shared.store.tables import releases, rollout_versions
from services.shared.store.upsert import chunks

_OF_USERS = rollout_versions.c.purpose == Purpose.USER.value


def first_served_time() -> ColumnElement[datetime | None]:
    """Column of a query on `releases`: the time, null for none; one step down an index for each release."""
    shown = (
        select(func.min(rollout_versions.c.first_token_time))
        .where(rollout_versions.c.policy_version == releases.c.version, _OF_USERS)
        .scalar_subquery()
    )
    kept = releases.c.first_served_time
    return case((kept.is_(None), shown), (shown.is_(None), kept), (kept < shown, kept), else_=shown)


def keep_first_served(connection: Connection, rollout_ids: Iterable[str]) -> None:
    """To be called before these rollouts are deleted."""
    for some in chunks(sorted(set(rollout_ids))):
        query = (
            select(rollout_versions.c.policy_version, func.min(rollout_versions.c.first_token_time).label("first"))
            .where(rollout_versions.c.rollout_id.in_(some), _OF_USERS, rollout_versions.c.first_token_time.is_not(None))
            .group_by(rollout_versions.c.policy_version)
            .order_by(rollout_versions.c.policy_version)
        )
        for row in connection.execute(query).all():
            later = or_(releases.c.first_served_time.is_(None), releases.c.first_served_time > row.first)
            mine = releases.c.version == row.policy_version
            connection.execute(update(releases).where(mine, later).values(first_served_time=row.first))
