"""Candidates, releases, what made them, and how they are made known.

These are the learner's own records, backed up with the store; a replay of the log does not give them. They belong to
the deployment, not to one tenant; `uses` leads from them to tenants' rows.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, UniqueConstraint, text

from services.shared.store.columns import CanonicalJson, ExactText, UtcTime
from services.shared.store.tables.metadata import metadata

candidates = Table(
    "candidates",
    metadata,
    Column("version", ExactText, primary_key=True),
    Column("kind", ExactText, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("parent_version", ExactText, nullable=False),
    Column("checkpoint_path", ExactText, nullable=False),
    Column("manifest_sha256", ExactText, nullable=False),
    Column("base_model_digest", ExactText, nullable=False),
    Column("reward_model_version", ExactText, nullable=False),
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
    Column("version", ExactText, primary_key=True),
    Column("kind", ExactText, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("parent_version", ExactText, nullable=False),
    Column("state", ExactText, nullable=False, comment="committed | published | refused | rolled_back"),
    Column("checkpoint_path", ExactText, nullable=False),
    Column("manifest_sha256", ExactText, nullable=False),
    Column("base_model_digest", ExactText, nullable=False),
    Column("reward_model_version", ExactText, nullable=False),
    Column("experiences", Integer, nullable=False),
    Column("commit_time", UtcTime, nullable=False),
    Column("publish_time", UtcTime),
    Column("first_served_time", UtcTime, comment="as far as deleted rollouts say; null: none of them does"),
    Column("metrics", CanonicalJson, nullable=False),
    Column("gate_verdict", CanonicalJson, nullable=False),
    UniqueConstraint("kind", "number"),
    Index("ix_releases_commit_time", "commit_time", "version"),
    Index("ix_releases_reward_model", "reward_model_version"),
)

uses = Table(
    "uses",
    metadata,
    Column("version", ExactText, primary_key=True),
    Column("rollout_id", ExactText, primary_key=True),
    Column("feedback_id", ExactText, primary_key=True, comment="empty: the rollout without what was said of it"),
    Column("kind", ExactText, nullable=False, comment="of the release"),
    Column("tenant", ExactText, nullable=False),
    Index("ix_uses_rollout", "rollout_id", "feedback_id", "kind"),
    sqlite_with_rowid=False,
)

announcements = Table(
    "announcements",
    metadata,
    Column("kind", ExactText, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("version", ExactText, nullable=False),
    Column("reason", ExactText, nullable=False),
    Column("event_id", ExactText, nullable=False),
    Column("commit_time", UtcTime, nullable=False),
    Column("publish_time", UtcTime),
    UniqueConstraint("kind", "sequence"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("event_id", ExactText, primary_key=True),
    Column("topic", ExactText, nullable=False),
    Column("key", ExactText, nullable=False),
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
    Column("replica_id", ExactText, primary_key=True),
    Column("kind", ExactText, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("version", ExactText, nullable=False, comment="that it serves; empty: none yet"),
    Column("failed_version", ExactText, nullable=False, server_default=text("''")),
    Column("stage_error", ExactText, nullable=False, server_default=text("''")),
    Column("acknowledge_time", UtcTime, nullable=False),
    Index("ix_acknowledgements_version", "version"),
)
