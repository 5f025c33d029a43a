"""Rollouts, their scores, and the experience that joins them with feedback.

`rollouts`, `rollout_versions`, `scores` are what the log says: replaying it gives the same rows. `reference_passes`
and `features` come with scores, and are deleted when training no longer needs them. `experiences` is the left-outer
join's row, there as soon as anything of a rollout is known; its `state` is the learner's own record.

A rollout id belongs to the tenant whose rollout came first. What another tenant says of the same id lies in rows of
its own (the tenant is part of their keys), which never meet that rollout. Keys begin with the rollout id: ids grow
with time, so new rows go to the warm end of each B-tree.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, Table, text

from services.shared.store.columns import CanonicalJson, ExactText, UtcTime
from services.shared.store.tables.metadata import metadata

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout_id", ExactText, primary_key=True),
    Column("tenant", ExactText, nullable=False),
    Column("event_id", ExactText, nullable=False),
    Column("deployment", ExactText, nullable=False),
    Column("event_time", UtcTime, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("traceparent", ExactText, nullable=False),
    Column("conversation_id", ExactText, nullable=False),
    Column("prompt_id", ExactText, nullable=False),
    Column("group_id", ExactText, nullable=False),
    Column("purpose", ExactText, nullable=False),
    Column("messages", CanonicalJson, nullable=False),
    Column("tokenizer_digest", ExactText, nullable=False),
    Column("template_digest", ExactText, nullable=False),
    Column("prompt_token_ids", LargeBinary, nullable=False, comment="uint32"),
    Column("response_token_ids", LargeBinary, nullable=False, comment="uint32"),
    Column("behaviour_log_probs", LargeBinary, nullable=False, comment="float32"),
    Column("raw_log_probs", LargeBinary, nullable=False, comment="float32; empty: the engine gave none"),
    Column("sampling", CanonicalJson, nullable=False),
    Column("spans", CanonicalJson, nullable=False),
    Column("finish_reason", ExactText, nullable=False),
    Column("request_time", UtcTime, nullable=False),
    Column("first_token_time", UtcTime),
    Column("end_time", UtcTime, nullable=False),
    Column("canary_id", ExactText, nullable=False),
    Column("rater_id", ExactText, nullable=False),
    Column("response_text", ExactText, nullable=False),
    Column("overflow", CanonicalJson),
    Column("starting_version", ExactText, nullable=False),
    Column("oldest_version", ExactText, nullable=False),
    Column("oldest_version_number", BigInteger),
    Index("ix_rollouts_rater", "tenant", "rater_id"),
)

rollout_versions = Table(
    "rollout_versions",
    metadata,
    Column("rollout_id", ExactText, primary_key=True),
    Column("policy_version", ExactText, primary_key=True),
    Column("tenant", ExactText, nullable=False),
    Column("purpose", ExactText, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("whole", Boolean, nullable=False, comment="the version drew all of the response's tokens"),
    Column("first_token_time", UtcTime),
    Index("ix_rollout_versions_served", "policy_version", "purpose", "first_token_time"),
    sqlite_with_rowid=False,
)

_WAITING = text("end_time IS NULL")
"""The few whose rollout has not come: an index of all end times would cost each experience its share, and leads a
planner that wants the newest of a version astray."""

experiences = Table(
    "experiences",
    metadata,
    Column("rollout_id", ExactText, primary_key=True),
    Column("tenant", ExactText, primary_key=True),
    Column("end_time", UtcTime, comment="of the rollout; null: the rollout has not come"),
    Column("oldest_version", ExactText, nullable=False, server_default=text("''")),
    Column("eligible", Boolean, nullable=False, server_default=text("false"), comment="PPO may take it"),
    Column("scored", Boolean, nullable=False, server_default=text("false")),
    Column("rated", Boolean, nullable=False, server_default=text("false"), comment="a thumb holds a slot"),
    Column("state", ExactText, nullable=False, comment="open | claimed | used | stale | quarantined"),
    Column("claim_epoch", BigInteger),
    Column("lease_until", UtcTime),
    Column("stale_reason", ExactText, nullable=False, server_default=text("''")),
    Index("ix_experiences_ready", "state", "eligible", "scored", "oldest_version", "end_time", "rollout_id"),
    Index("ix_experiences_waiting", "rollout_id", sqlite_where=_WAITING, postgresql_where=_WAITING),
    sqlite_with_rowid=False,
)

scores = Table(
    "scores",
    metadata,
    Column("rollout_id", ExactText, primary_key=True),
    Column("reward_model_version", ExactText, primary_key=True),
    Column("tenant", ExactText, primary_key=True),
    Column("event_id", ExactText, nullable=False),
    Column("event_time", UtcTime, nullable=False),
    Column("mean", Float, nullable=False),
    Column("spread", Float, nullable=False),
    Column("terms", CanonicalJson, nullable=False),
    sqlite_with_rowid=False,
)

reference_passes = Table(
    "reference_passes",
    metadata,
    Column("rollout_id", ExactText, primary_key=True),
    Column("tenant", ExactText, primary_key=True),
    Column("event_id", ExactText, nullable=False, comment="of the score that it came with"),
    Column("event_time", UtcTime, nullable=False),
    Column("log_probs", LargeBinary, nullable=False, comment="float32"),
    Column("temperature", Float, nullable=False),
    Column("base_model_digest", ExactText, nullable=False),
    Index("ix_reference_passes_event_time", "event_time", "rollout_id"),
    sqlite_with_rowid=False,
)

features = Table(
    "features",
    metadata,
    Column("rollout_id", ExactText, primary_key=True),
    Column("tenant", ExactText, primary_key=True),
    Column("event_id", ExactText, nullable=False, comment="of the score that they came with"),
    Column("event_time", UtcTime, nullable=False),
    Column("features", LargeBinary, nullable=False, comment="fp16"),
    Column("layout", ExactText, nullable=False),
    Index("ix_features_event_time", "event_time", "rollout_id"),
)
