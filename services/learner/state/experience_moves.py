"""Moves experiences from state to state: by id, and along with the lineage that is live.

A release's experiences are used as long as it is in the live lineage. When a rollback leaves releases behind, what
they used is open again, and so is what had become too old for them; when a release comes back into the lineage, what
it used is used again. So along any lineage that is live, an experience was trained on at most once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from services.learner.state.ancestry import lineage
from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.store.tables import experiences, releases, uses
from services.shared.store.upsert import chunks

TOO_OLD = "too stale"
"""Reason of stale experiences that a rollback may bring back."""

REOPENED_VERSIONS = 64
"""Of a lineage, what its newest so many versions drew may be fresh once more; the rest never is."""

_OPEN = {"state": "open", "stale_reason": "", "claim_epoch": None, "lease_until": None}
_USED = {"state": "used", "stale_reason": "", "lease_until": None}


def move(connection: Connection, rollout_ids: Iterable[str], *where: ColumnElement[bool], **values: Any) -> int:
    """Gives experiences new values, as far as `where` holds; how many it did.

    An id means the experience that has its rollout, never what another tenant said of the same id.
    """
    moved = 0
    for some in chunks(sorted(set(rollout_ids))):
        these = (experiences.c.rollout_id.in_(some), experiences.c.end_time.is_not(None))
        moved += connection.execute(update(experiences).where(*these, *where).values(values)).rowcount
    return moved


def switch_lineage(connection: Connection, from_version: str, to_version: str) -> None:
    """States of releases and experiences for a live lineage that ends in `to_version` instead of `from_version`."""
    before, after = lineage(connection, from_version), lineage(connection, to_version)
    kept = set(before).intersection(after)
    left = [version for version in before if version not in kept]
    entered = [version for version in after if version not in kept]
    _set_state(connection, left, ReleaseState.ROLLED_BACK)
    _set_state(connection, entered, ReleaseState.PUBLISHED)
    given_back = _used_by(connection, left) - _used_by(connection, after)
    move(connection, given_back, experiences.c.state == "used", **_OPEN)
    move(connection, _used_by(connection, entered), experiences.c.state != "quarantined", **_USED)
    _reopen_too_old(connection, after[:REOPENED_VERSIONS])


def _reopen_too_old(connection: Connection, versions: Collection[str]) -> None:
    """What these versions drew and was too old is ready again, as far as it still is fresh."""
    fit = (experiences.c.eligible.is_(True), experiences.c.scored.is_(True))
    drawn = experiences.c.oldest_version.in_(versions)
    too_old = (experiences.c.state == "stale", *fit, drawn, experiences.c.stale_reason == TOO_OLD)
    connection.execute(update(experiences).where(*too_old).values(_OPEN))


def _set_state(connection: Connection, versions: Collection[str], state: ReleaseState) -> None:
    connection.execute(update(releases).where(releases.c.version.in_(versions)).values(state=state.value))


def _used_by(connection: Connection, versions: Collection[str]) -> set[str]:
    """Rollouts that these policy releases were trained on."""
    found: set[str] = set()
    for some in chunks(list(versions)):
        query = select(uses.c.rollout_id).where(uses.c.version.in_(some), uses.c.kind == ReleaseKind.POLICY.value)
        found.update(connection.scalars(query))
    return found
