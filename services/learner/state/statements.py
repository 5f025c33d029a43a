"""Feedback rows: how they are made from events, how two of one id become one, and which holds a slot.

Three rules make the order of arrival irrelevant. A feedback id keeps the revision of its *first acceptance* (least
accept time). Of several statements under one id the *strongest* (greatest retraction, digest) is kept. And the slot
belongs to the row with the greatest (revision, retraction, digest, id). Each rule is a minimum or a maximum, so
applying it twice, or in another order, gives the same.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import case, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from services.learner.state.rows import Row, meta_columns
from services.shared.domain.feedback import Feedback, Thumb
from services.shared.store.tables import feedback

SLOT = ("tenant", "rollout_id", "rater_id", "kind")
"""Columns that name a slot."""

IDENTITY = (*SLOT, "feedback_id")
"""Columns that name a row of `feedback`: an id means something within its slot alone, so nobody can touch another's."""

_STRONGEST = ("retracted", "digest", "body")

_FIRST = (
    "revision",
    "accept_time",
    "prompt_id",
    "token_key_id",
    "event_id",
    "deployment",
    "event_time",
    "schema_version",
    "traceparent",
)


def feedback_row(item: Feedback) -> Row:
    """A row of `feedback` from one event."""
    return meta_columns(item.meta) | {
        "rollout_id": item.rollout_id,
        "rater_id": item.rater_id,
        "kind": item.kind.value,
        "feedback_id": item.feedback_id,
        "revision": item.revision,
        "retracted": item.retracted,
        "digest": item.digest,
        "body": None if item.body is None else asdict(item.body),
        "prompt_id": item.prompt_id,
        "accept_time": item.accept_time,
        "token_key_id": item.token_key_id,
    }


def merging_insert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    """INSERT of rows of `feedback` that merges each with the row of its identity, by the first two rules above."""
    new, old = insert.excluded, feedback.c
    earlier = tuple_(new.accept_time, new.event_id) < tuple_(old.accept_time, old.event_id)
    stronger = tuple_(new.retracted, new.digest) > tuple_(old.retracted, old.digest)
    merged = {name: case((earlier, new[name]), else_=old[name]) for name in _FIRST}
    merged |= {name: case((stronger, new[name]), else_=old[name]) for name in _STRONGEST}
    return insert.on_conflict_do_update(index_elements=list(IDENTITY), set_=merged)


def slot_row(holder: Any) -> Row:
    """The row of `feedback_slots` for the row of `feedback` that holds the slot."""
    is_thumb = holder.kind == "thumb" and not holder.retracted
    return {name: getattr(holder, name) for name in (*IDENTITY, "revision", "retracted", "digest", "accept_time")} | {
        "up": Thumb(**holder.body).up if is_thumb else None
    }
