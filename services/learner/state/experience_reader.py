"""Reads experiences and rated examples out of the store's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, select

from services.learner.ports import Experience, RatedExample
from services.learner.state.rows import rollout_from_row
from services.shared.domain.feedback import FeedbackKind
from services.shared.domain.rollout import Rollout
from services.shared.store.columns import unpack_floats
from services.shared.store.tables import experiences, features, feedback_slots, reference_passes, rollouts, scores
from services.shared.store.upsert import chunks

_HELD_THUMB = and_(
    feedback_slots.c.kind == FeedbackKind.THUMB.value,
    feedback_slots.c.retracted.is_(False),
    feedback_slots.c.quarantined.is_(False),
)


def read_experiences(
    connection: Connection,
    rollout_ids: Sequence[str],
    *,
    staleness: Mapping[str, int],
    reward_model_version: str,
    join_window: timedelta,
) -> list[Experience]:
    """Experiences in the order of `rollout_ids`. `staleness` gives each version's distance from the learner's. A thumb
    that came later than `join_window` after the response is left out: it trains the reward model alone.
    """
    thumbs = _thumbs(connection, rollout_ids)
    found: dict[str, Experience] = {}
    for row in _joined(connection, rollout_ids, reward_model_version):
        rollout = rollout_from_row(row)
        up, feedback_id = _timely(thumbs.get((row.tenant, row.rollout_id), []), rollout, join_window)
        found[rollout.rollout_id] = Experience(
            rollout=rollout,
            staleness=max(staleness[span.policy_version] for span in rollout.spans),
            thumb=up,
            thumb_feedback_id=feedback_id,
            reference_log_probs=unpack_floats(row.reference_log_probs or b""),
            features=row.features or b"",
            feature_layout=row.layout or "",
            score_mean=row.score_mean,
            score_spread=row.score_spread,
            score_terms=tuple((name, value) for name, value in row.score_terms or ()),
        )
    return [found[rollout_id] for rollout_id in rollout_ids if rollout_id in found]


def read_rated_examples(connection: Connection, *, limit: int) -> list[RatedExample]:
    """The newest thumbs that hold their slots and whose rollouts have features, oldest first."""
    newest = _rated(feedback_slots, features.c.features, features.c.layout).limit(limit)
    examples = [
        RatedExample(
            rollout_id=row.rollout_id,
            feedback_id=row.feedback_id,
            rater_id=row.rater_id,
            up=row.up,
            accept_time=row.accept_time,
            features=row.features,
            feature_layout=row.layout,
        )
        for row in connection.execute(newest)
    ]
    return examples[::-1]


def oldest_rated_example(connection: Connection, *, newest: int) -> datetime | None:
    """Accept time of the oldest of the so many newest rated examples; None where there are fewer."""
    query = _rated(feedback_slots.c.accept_time).offset(newest - 1).limit(1)
    time: datetime | None = connection.scalar(query)
    return time


def held_thumbs_since(
    connection: Connection, rollout_ids: Sequence[str], since: datetime | None
) -> set[tuple[str, str]]:
    """(rollout id, tenant) of those of the rollouts that a thumb of that time or later holds a slot of; None: ever."""
    return {
        (slot.rollout_id, slot.tenant)
        for slot in slots_of(connection, rollout_ids)
        if is_held_thumb(slot) and (since is None or slot.accept_time >= since)
    }


def _rated(*columns: Any) -> Select[*tuple[Any, ...]]:
    """Thumbs that hold their slots and whose rollouts, of the same tenant, are there with features; newest first."""
    of_tenant = {
        table: and_(table.c.rollout_id == feedback_slots.c.rollout_id, table.c.tenant == feedback_slots.c.tenant)
        for table in (features, experiences)
    }
    return (
        select(*columns)
        .select_from(feedback_slots)
        .join(features, of_tenant[features])
        .join(experiences, of_tenant[experiences])
        .where(_HELD_THUMB, experiences.c.end_time.is_not(None))
        .order_by(feedback_slots.c.accept_time.desc(), feedback_slots.c.feedback_id.desc())
    )


def _joined(connection: Connection, rollout_ids: Sequence[str], reward_model_version: str) -> list[Any]:
    """Rows of `rollouts`, each with its reference pass, its features and its score by the pinned reward model."""
    pinned = and_(_of_rollout(scores), scores.c.reward_model_version == reward_model_version)
    query = (
        select(
            rollouts,
            reference_passes.c.log_probs.label("reference_log_probs"),
            features.c.features,
            features.c.layout,
            scores.c.mean.label("score_mean"),
            scores.c.spread.label("score_spread"),
            scores.c.terms.label("score_terms"),
        )
        .outerjoin(reference_passes, _of_rollout(reference_passes))
        .outerjoin(features, _of_rollout(features))
        .outerjoin(scores, pinned)
    )
    return [
        row for some in chunks(rollout_ids) for row in connection.execute(query.where(rollouts.c.rollout_id.in_(some)))
    ]


def _of_rollout(table: Table) -> ColumnElement[bool]:
    return and_(table.c.rollout_id == rollouts.c.rollout_id, table.c.tenant == rollouts.c.tenant)


def _thumbs(connection: Connection, rollout_ids: Sequence[str]) -> dict[tuple[str, str], list[Any]]:
    """By tenant and rollout, in the order of acceptance."""
    found: dict[tuple[str, str], list[Any]] = {}
    held = (row for row in slots_of(connection, rollout_ids) if is_held_thumb(row))
    for row in sorted(held, key=lambda row: (row.accept_time, row.feedback_id)):
        found.setdefault((row.tenant, row.rollout_id), []).append(row)
    return found


def slots_of(connection: Connection, rollout_ids: Sequence[str]) -> Iterator[Any]:
    """All slots of rollouts, of all tenants and kinds.

    Conditions on the kind stay out of the query: SQLite, which keeps no count of how many thumbs there are, would
    rather go through all of them than down the key.
    """
    for some in chunks(rollout_ids):
        yield from connection.execute(select(feedback_slots).where(feedback_slots.c.rollout_id.in_(some)))


def is_held_thumb(slot: Any) -> bool:
    """A thumb holds the slot, and counts."""
    return slot.kind == FeedbackKind.THUMB.value and not slot.retracted and not slot.quarantined


def _timely(thumbs: Sequence[Any], rollout: Rollout, join_window: timedelta) -> tuple[bool | None, str]:
    """The last thumb within the window; its own rater's before another's."""
    timely = [thumb for thumb in thumbs if thumb.accept_time - rollout.end_time <= join_window]
    if not timely:
        return None, ""
    chosen = max(timely, key=lambda thumb: (thumb.rater_id == rollout.rater_id, thumb.accept_time))
    return chosen.up, chosen.feedback_id
