"""Feedback rows: how they are made from events, how two of one id become one, and which holds a slot.

Three rules make the order of arrival irrelevant. A feedback id keeps the revision of its *first acceptance* (least
accept time). Of several statements under one id the *strongest* (greatest retraction, digest) is kept. And the slot
belongs to the row with the greatest (revision, retraction, digest, id). Each rule is a minimum or a maximum, so
applying it twice, or in another order, gives the same.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from services.learner.state.rows import Row, meta_columns
from services.shared.domain.feedback import Feedback, Thumb

SLOT = ("tenant", "rollout_id", "rater_id", "kind")
"""Columns that name a slot."""

IDENTITY = (*SLOT, "feedback_id")
"""Columns that name a row of `feedback`: an id means something within its slot alone, so nobody can touch another's."""

_STATEMENT = ("retracted", "digest", "body")


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


def identity(row: Row) -> tuple[str, ...]:
    """The primary key of a row of `feedback`."""
    return tuple(row[name] for name in IDENTITY)


def merge(one: Row, other: Row) -> Row:
    """Two rows of one identity become one."""
    first, second = sorted((one, other), key=lambda row: (row["accept_time"], row["event_id"]))
    strongest = max((first, second), key=lambda row: (row["retracted"], row["digest"]))
    return first | {name: strongest[name] for name in _STATEMENT}


def slot_row(holder: Any) -> Row:
    """The row of `feedback_slots` for the row of `feedback` that holds the slot."""
    is_thumb = holder.kind == "thumb" and not holder.retracted
    return {name: getattr(holder, name) for name in (*IDENTITY, "revision", "retracted", "digest", "accept_time")} | {
        "up": Thumb(**holder.body).up if is_thumb else None
    }
