"""Everything that was said, and what holds.

`feedback` has a row for each feedback id of a slot: its first acceptance, its strongest statement. `feedback_slots`
has a row for each (tenant, rater, rollout, kind): the strongest of its `feedback` rows, from which it can be computed.
Where a feedback is (waiting, joined, late, orphaned, ...) is asked, never stored.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, text

from services.shared.store.columns import CanonicalJson, ExactText, UtcTime
from services.shared.store.tables.metadata import metadata

OF_COMPARISONS = text("kind = 'comparison'")
"""Comparisons alone are looked for by what they say, when a rollout that one of them names is to be forgotten. A query
must say it in these words to be given the index."""

feedback = Table(
    "feedback",
    metadata,
    Column("tenant", ExactText, primary_key=True),
    Column("rollout_id", ExactText, primary_key=True),
    Column("rater_id", ExactText, primary_key=True),
    Column("kind", ExactText, primary_key=True),
    Column("feedback_id", ExactText, primary_key=True),
    Column("revision", BigInteger, nullable=False, comment="of the first acceptance"),
    Column("retracted", Boolean, nullable=False),
    Column("digest", ExactText, nullable=False),
    Column("body", CanonicalJson, comment="null: a retraction without one"),
    Column("prompt_id", ExactText, nullable=False),
    Column("accept_time", UtcTime, nullable=False, comment="first"),
    Column("token_key_id", ExactText, nullable=False),
    Column("event_id", ExactText, nullable=False, comment="of the first acceptance"),
    Column("deployment", ExactText, nullable=False),
    Column("event_time", UtcTime, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("traceparent", ExactText, nullable=False),
    Column("quarantine_reason", ExactText, nullable=False, server_default=text("''")),
    Column("reject_reason", ExactText, nullable=False, server_default=text("''")),
    Index("ix_feedback_id", "tenant", "feedback_id", "accept_time"),
    Index(
        "ix_feedback_slot", "tenant", "rollout_id", "rater_id", "kind", "revision", "retracted", "digest", "feedback_id"
    ),
    Index("ix_feedback_accept_time", "accept_time"),
    Index("ix_feedback_comparisons", "tenant", "body", sqlite_where=OF_COMPARISONS, postgresql_where=OF_COMPARISONS),
)

feedback_slots = Table(
    "feedback_slots",
    metadata,
    Column("rollout_id", ExactText, primary_key=True),
    Column("tenant", ExactText, primary_key=True),
    Column("rater_id", ExactText, primary_key=True),
    Column("kind", ExactText, primary_key=True),
    Column("feedback_id", ExactText, nullable=False, comment="holds the slot"),
    Column("revision", BigInteger, nullable=False),
    Column("retracted", Boolean, nullable=False, comment="the slot is empty"),
    Column("digest", ExactText, nullable=False),
    Column("accept_time", UtcTime, nullable=False),
    Column("up", Boolean, comment="of a thumb that holds its slot"),
    Column("quarantined", Boolean, nullable=False, server_default=text("false")),
    Index("ix_feedback_slots_rater", "tenant", "rater_id"),
    Index("ix_feedback_slots_newest", "kind", "retracted", "accept_time", "feedback_id"),
    Index("ix_feedback_slots_sign", "kind", "retracted", "up"),
    sqlite_with_rowid=False,
)
