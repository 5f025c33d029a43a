"""Candidates, releases, what made them, and how they are made known.

These are the learner's own records, backed up with the store; a replay of the log does not give them. They belong to
the deployment, not to one tenant; `uses` leads from them to tenants' rows.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text, UniqueConstraint, text

from services.shared.store.columns import CanonicalJson, UtcTime
from services.shared.store.tables.metadata import metadata

candidates = Table(
    "candidates",
    metadata,
    Column("version", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("parent_version", Text, nullable=False),
    Column("checkpoint_path", Text, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("base_model_digest", Text, nullable=False),
    Column("reward_model_version", Text, nullable=False),
    Column("rollout_ids", CanonicalJson, nullable=False),
    Column("feedback_ids", CanonicalJson, nullable=False),
    Column("metrics", CanonicalJson, nullable=False),
    Column("submit_time", UtcTime, nullable=False),
    Column("passed", Boolean, comment="null: not decided"),
    Column("verdict", CanonicalJson),
    Index("ix_candidates_undecided", "passed", "submit_time"),
    Index("ix_candidates_number", "kind", "number"),
)

releases = Table(
    "releases",
    metadata,
    Column("version", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("parent_version", Text, nullable=False),
    Column("state", Text, nullable=False, comment="committed | published | refused | rolled_back"),
    Column("checkpoint_path", Text, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("base_model_digest", Text, nullable=False),
    Column("reward_model_version", Text, nullable=False),
    Column("experiences", Integer, nullable=False),
    Column("commit_time", UtcTime, nullable=False),
    Column("publish_time", UtcTime),
    Column("metrics", CanonicalJson, nullable=False),
    Column("gate_verdict", CanonicalJson, nullable=False),
    UniqueConstraint("kind", "number"),
    Index("ix_releases_commit_time", "commit_time", "version"),
    Index("ix_releases_reward_model", "reward_model_version"),
)

uses = Table(
    "uses",
    metadata,
    Column("version", Text, primary_key=True),
    Column("rollout_id", Text, primary_key=True),
    Column("feedback_id", Text, primary_key=True, comment="empty: the rollout without what was said of it"),
    Column("kind", Text, nullable=False, comment="of the release"),
    Column("tenant", Text, nullable=False),
    Index("ix_uses_rollout", "rollout_id", "feedback_id", "kind"),
    sqlite_with_rowid=False,
)

announcements = Table(
    "announcements",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("version", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("commit_time", UtcTime, nullable=False),
    Column("publish_time", UtcTime),
    UniqueConstraint("kind", "sequence"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("position", BigInteger, nullable=False, comment="order of publishing"),
    Column("commit_time", UtcTime, nullable=False),
    Column("publish_time", UtcTime, comment="when Kafka had it; null: not yet"),
    UniqueConstraint("position"),
    Index("ix_outbox_publish_time", "publish_time", "position"),
)

acknowledgements = Table(
    "acknowledgements",
    metadata,
    Column("replica_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("version", Text, nullable=False, comment="that it serves; empty: none yet"),
    Column("failed_version", Text, nullable=False, server_default=text("''")),
    Column("stage_error", Text, nullable=False, server_default=text("''")),
    Column("acknowledge_time", UtcTime, nullable=False),
    Index("ix_acknowledgements_version", "version"),
)
