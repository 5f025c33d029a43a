"""Who may write, and how far the log has been read."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Table, text

from services.shared.store.columns import ExactText, UtcTime
from services.shared.store.tables.metadata import metadata

leases = Table(
    "leases",
    metadata,
    Column("name", ExactText, primary_key=True),
    Column("epoch", BigInteger, nullable=False, comment="grows with each holder; fences the ones before"),
    Column("holder", ExactText, nullable=False),
    Column("until", UtcTime, nullable=False),
)

ingest_offsets = Table(
    "ingest_offsets",
    metadata,
    Column("topic", ExactText, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next", BigInteger, nullable=False, comment="offset of the next record to be read"),
    Column("epoch", BigInteger, nullable=False),
    Column("last_event_id", ExactText, nullable=False, comment="of the record at next - 1"),
    Column("cluster_id", ExactText, nullable=False),
    Column("topic_id", ExactText, nullable=False, server_default="", comment="empty: not known"),
    Column("holder", ExactText, nullable=False),
    Column("lease_until", UtcTime, nullable=False),
    Column("recent_read", Integer, nullable=False, server_default=text("0")),
    Column("recent_dead", Integer, nullable=False, server_default=text("0")),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("topic", ExactText, primary_key=True),
    Column("reason", ExactText, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_time", UtcTime, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("replica_id", ExactText, primary_key=True),
    Column("seen_time", UtcTime, nullable=False, comment="when it last asked the learner for something, roughly"),
)

flags = Table(
    "flags",
    metadata,
    Column("name", ExactText, primary_key=True),
    Column("value", ExactText, nullable=False),
    Column("reason", ExactText, nullable=False),
    Column("change_time", UtcTime, nullable=False),
)
