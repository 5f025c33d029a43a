"""Orders to consumers, forgotten ids, and keys of those who may call."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text

from services.shared.store.columns import CanonicalJson, UtcTime
from services.shared.store.tables.metadata import metadata

controls = Table(
    "controls",
    metadata,
    Column("control_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("order", CanonicalJson, nullable=False),
    Column("commit_time", UtcTime, nullable=False),
    Column("publish_time", UtcTime),
)

control_acknowledgements = Table(
    "control_acknowledgements",
    metadata,
    Column("control_id", Text, primary_key=True),
    Column("replica_id", Text, primary_key=True),
    Column("acknowledge_time", UtcTime, nullable=False),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True, comment="rollout | feedback | rater"),
    Column("subject_id", Text, primary_key=True),
    Column("control_id", Text, nullable=False),
    Column("forget_time", UtcTime, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("secret_digest", Text, nullable=False),
    Column("scopes", CanonicalJson, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("expire_time", UtcTime),
    Column("revoke_time", UtcTime),
    Index("ix_api_keys_tenant", "tenant"),
)
