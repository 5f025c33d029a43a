"""Orders to consumers, forgotten ids, and keys of those who may call."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, text

from services.shared.store.columns import CanonicalJson, ExactText, UtcTime
from services.shared.store.tables.metadata import metadata

_UNPUBLISHED = text("publish_time IS NULL")
"""The few that Kafka has not had yet; the releaser looks for them many times a second."""

controls = Table(
    "controls",
    metadata,
    Column("control_id", ExactText, primary_key=True),
    Column("tenant", ExactText, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("order", CanonicalJson, nullable=False),
    Column("commit_time", UtcTime, nullable=False),
    Column("publish_time", UtcTime),
    Index(
        "ix_controls_unpublished",
        "commit_time",
        "control_id",
        sqlite_where=_UNPUBLISHED,
        postgresql_where=_UNPUBLISHED,
    ),
)

control_acknowledgements = Table(
    "control_acknowledgements",
    metadata,
    Column("control_id", ExactText, primary_key=True),
    Column("replica_id", ExactText, primary_key=True),
    Column("acknowledge_time", UtcTime, nullable=False),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("tenant", ExactText, primary_key=True),
    Column("subject", ExactText, primary_key=True, comment="rollout | feedback | rater"),
    Column("subject_id", ExactText, primary_key=True),
    Column("control_id", ExactText, nullable=False),
    Column("forget_time", UtcTime, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", ExactText, primary_key=True),
    Column("tenant", ExactText, nullable=False),
    Column("name", ExactText, nullable=False),
    Column("secret_digest", ExactText, nullable=False),
    Column("scopes", CanonicalJson, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("expire_time", UtcTime),
    Column("revoke_time", UtcTime),
    Index("ix_api_keys_tenant", "tenant"),
)
