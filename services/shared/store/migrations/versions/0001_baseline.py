"""Baseline: all tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import services.shared.store.columns

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this version."""
    op.create_table(
        "acknowledgements",
        sa.Column("replica_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False, comment="that it serves; empty: none yet"),
        sa.Column("failed_version", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("stage_error", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("acknowledge_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("replica_id", "kind", name=op.f("pk_acknowledgements")),
    )
    with op.batch_alter_table("acknowledgements", schema=None) as batch_op:
        batch_op.create_index("ix_acknowledgements_version", ["version"], unique=False)

    op.create_table(
        "announcements",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("commit_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("publish_time", services.shared.store.columns.UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("kind", "epoch", "sequence", name=op.f("pk_announcements")),
        sa.UniqueConstraint("kind", "sequence", name=op.f("uq_announcements_kind_sequence")),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_digest", sa.Text(), nullable=False),
        sa.Column("scopes", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("create_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("expire_time", services.shared.store.columns.UtcTime(), nullable=True),
        sa.Column("revoke_time", services.shared.store.columns.UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.create_index("ix_api_keys_tenant", ["tenant"], unique=False)

    op.create_table(
        "candidates",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("parent_version", sa.Text(), nullable=False),
        sa.Column("checkpoint_path", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("base_model_digest", sa.Text(), nullable=False),
        sa.Column("reward_model_version", sa.Text(), nullable=False),
        sa.Column("rollout_ids", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("feedback_ids", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("metrics", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("submit_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=True, comment="null: not decided"),
        sa.Column("verdict", services.shared.store.columns.CanonicalJson(), nullable=True),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_candidates")),
    )
    with op.batch_alter_table("candidates", schema=None) as batch_op:
        batch_op.create_index("ix_candidates_number", ["kind", "number"], unique=False)
        batch_op.create_index("ix_candidates_undecided", ["passed", "submit_time"], unique=False)

    op.create_table(
        "control_acknowledgements",
        sa.Column("control_id", sa.Text(), nullable=False),
        sa.Column("replica_id", sa.Text(), nullable=False),
        sa.Column("acknowledge_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("control_id", "replica_id", name=op.f("pk_control_acknowledgements")),
    )
    op.create_table(
        "controls",
        sa.Column("control_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("order", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("commit_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("publish_time", services.shared.store.columns.UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("control_id", name=op.f("pk_controls")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("last_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "reason", name=op.f("pk_dead_letters")),
    )
    op.create_table(
        "experiences",
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column(
            "end_time",
            services.shared.store.columns.UtcTime(),
            nullable=True,
            comment="of the rollout; null: the rollout has not come",
        ),
        sa.Column("oldest_version", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column(
            "eligible", sa.Boolean(), server_default=sa.text("(false)"), nullable=False, comment="PPO may take it"
        ),
        sa.Column("scored", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column(
            "rated", sa.Boolean(), server_default=sa.text("(false)"), nullable=False, comment="a thumb holds a slot"
        ),
        sa.Column("state", sa.Text(), nullable=False, comment="open | claimed | used | stale | quarantined"),
        sa.Column("claim_epoch", sa.BigInteger(), nullable=True),
        sa.Column("lease_until", services.shared.store.columns.UtcTime(), nullable=True),
        sa.Column("stale_reason", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_experiences")),
    )
    with op.batch_alter_table("experiences", schema=None) as batch_op:
        batch_op.create_index("ix_experiences_end_time", ["end_time"], unique=False)
        batch_op.create_index(
            "ix_experiences_ready", ["state", "eligible", "scored", "end_time", "rollout_id"], unique=False
        )

    op.create_table(
        "features",
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False, comment="of the score that they came with"),
        sa.Column("event_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("features", sa.LargeBinary(), nullable=False, comment="fp16"),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_features")),
    )
    op.create_table(
        "feedback",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("rater_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("feedback_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, comment="of the first acceptance"),
        sa.Column("retracted", sa.Boolean(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column(
            "body",
            services.shared.store.columns.CanonicalJson(),
            nullable=True,
            comment="null: a retraction without one",
        ),
        sa.Column("prompt_id", sa.Text(), nullable=False),
        sa.Column("accept_time", services.shared.store.columns.UtcTime(), nullable=False, comment="first"),
        sa.Column("token_key_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False, comment="of the first acceptance"),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("event_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("quarantine_reason", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.Column("reject_reason", sa.Text(), server_default=sa.text("('')"), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "rollout_id", "rater_id", "kind", "feedback_id", name=op.f("pk_feedback")),
    )
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.create_index("ix_feedback_accept_time", ["accept_time"], unique=False)
        batch_op.create_index("ix_feedback_id", ["tenant", "feedback_id", "accept_time"], unique=False)
        batch_op.create_index(
            "ix_feedback_slot",
            ["tenant", "rollout_id", "rater_id", "kind", "revision", "retracted", "digest", "feedback_id"],
            unique=False,
        )

    op.create_table(
        "feedback_slots",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("rater_id", sa.Text(), nullable=False),
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("feedback_id", sa.Text(), nullable=False, comment="holds the slot"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("retracted", sa.Boolean(), nullable=False, comment="the slot is empty"),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("accept_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("up", sa.Boolean(), nullable=True, comment="of a thumb that holds its slot"),
        sa.Column("quarantined", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "rater_id", "rollout_id", "kind", name=op.f("pk_feedback_slots")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("feedback_slots", schema=None) as batch_op:
        batch_op.create_index(
            "ix_feedback_slots_newest", ["kind", "retracted", "accept_time", "feedback_id"], unique=False
        )
        batch_op.create_index("ix_feedback_slots_rollout", ["rollout_id", "kind", "retracted"], unique=False)
        batch_op.create_index("ix_feedback_slots_sign", ["kind", "retracted", "up"], unique=False)

    op.create_table(
        "flags",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("change_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_flags")),
    )
    op.create_table(
        "ingest_offsets",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False, comment="offset of the next record to be read"),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("last_event_id", sa.Text(), nullable=False, comment="of the record at next - 1"),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("lease_until", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("recent_read", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("recent_dead", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("pk_ingest_offsets")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False, comment="grows with each holder; fences the ones before"),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", services.shared.store.columns.UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "outbox",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="order of publishing"),
        sa.Column("commit_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column(
            "publish_time",
            services.shared.store.columns.UtcTime(),
            nullable=True,
            comment="when Kafka had it; null: not yet",
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("position", name=op.f("uq_outbox_position")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index("ix_outbox_publish_time", ["publish_time", "position"], unique=False)

    op.create_table(
        "reference_passes",
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False, comment="of the score that it came with"),
        sa.Column("event_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("log_probs", sa.LargeBinary(), nullable=False, comment="float32"),
        sa.Column("temperature", sa.Float(), nullable=False),
        sa.Column("base_model_digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_reference_passes")),
    )
    op.create_table(
        "releases",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("parent_version", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="committed | published | refused | rolled_back"),
        sa.Column("checkpoint_path", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("base_model_digest", sa.Text(), nullable=False),
        sa.Column("reward_model_version", sa.Text(), nullable=False),
        sa.Column("experiences", sa.Integer(), nullable=False),
        sa.Column("commit_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("publish_time", services.shared.store.columns.UtcTime(), nullable=True),
        sa.Column("metrics", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("gate_verdict", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_releases")),
        sa.UniqueConstraint("kind", "number", name=op.f("uq_releases_kind_number")),
    )
    with op.batch_alter_table("releases", schema=None) as batch_op:
        batch_op.create_index("ix_releases_commit_time", ["commit_time", "version"], unique=False)
        batch_op.create_index("ix_releases_reward_model", ["reward_model_version"], unique=False)

    op.create_table(
        "rollout_versions",
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("policy_version", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False, comment="the version drew all of the response's tokens"),
        sa.Column("first_token_time", services.shared.store.columns.UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("rollout_id", "policy_version", name=op.f("pk_rollout_versions")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("rollout_versions", schema=None) as batch_op:
        batch_op.create_index(
            "ix_rollout_versions_served", ["policy_version", "purpose", "first_token_time"], unique=False
        )

    op.create_table(
        "rollouts",
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("event_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("prompt_id", sa.Text(), nullable=False),
        sa.Column("group_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("messages", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("tokenizer_digest", sa.Text(), nullable=False),
        sa.Column("template_digest", sa.Text(), nullable=False),
        sa.Column("prompt_token_ids", sa.LargeBinary(), nullable=False, comment="uint32"),
        sa.Column("response_token_ids", sa.LargeBinary(), nullable=False, comment="uint32"),
        sa.Column("behaviour_log_probs", sa.LargeBinary(), nullable=False, comment="float32"),
        sa.Column("raw_log_probs", sa.LargeBinary(), nullable=False, comment="float32; empty: the engine gave none"),
        sa.Column("sampling", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("spans", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.Column("finish_reason", sa.Text(), nullable=False),
        sa.Column("request_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("first_token_time", services.shared.store.columns.UtcTime(), nullable=True),
        sa.Column("end_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("canary_id", sa.Text(), nullable=False),
        sa.Column("rater_id", sa.Text(), nullable=False),
        sa.Column("response_text", sa.Text(), nullable=False),
        sa.Column("overflow", services.shared.store.columns.CanonicalJson(), nullable=True),
        sa.Column("starting_version", sa.Text(), nullable=False),
        sa.Column("oldest_version", sa.Text(), nullable=False),
        sa.Column("oldest_version_number", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_rollouts")),
    )
    with op.batch_alter_table("rollouts", schema=None) as batch_op:
        batch_op.create_index("ix_rollouts_rater", ["tenant", "rater_id"], unique=False)

    op.create_table(
        "scores",
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("reward_model_version", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.Column("mean", sa.Float(), nullable=False),
        sa.Column("spread", sa.Float(), nullable=False),
        sa.Column("terms", services.shared.store.columns.CanonicalJson(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "reward_model_version", name=op.f("pk_scores")),
    )
    op.create_table(
        "tombstones",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="rollout | feedback | rater"),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("control_id", sa.Text(), nullable=False),
        sa.Column("forget_time", services.shared.store.columns.UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "subject", "subject_id", name=op.f("pk_tombstones")),
    )
    op.create_table(
        "uses",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("rollout_id", sa.Text(), nullable=False),
        sa.Column("feedback_id", sa.Text(), nullable=False, comment="empty: the rollout without what was said of it"),
        sa.Column("kind", sa.Text(), nullable=False, comment="of the release"),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", "rollout_id", "feedback_id", name=op.f("pk_uses")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("uses", schema=None) as batch_op:
        batch_op.create_index("ix_uses_rollout", ["rollout_id", "feedback_id", "kind"], unique=False)


def downgrade() -> None:
    """Back from this version."""
    with op.batch_alter_table("uses", schema=None) as batch_op:
        batch_op.drop_index("ix_uses_rollout")

    op.drop_table("uses")
    op.drop_table("tombstones")
    op.drop_table("scores")
    with op.batch_alter_table("rollouts", schema=None) as batch_op:
        batch_op.drop_index("ix_rollouts_rater")

    op.drop_table("rollouts")
    with op.batch_alter_table("rollout_versions", schema=None) as batch_op:
        batch_op.drop_index("ix_rollout_versions_served")

    op.drop_table("rollout_versions")
    with op.batch_alter_table("releases", schema=None) as batch_op:
        batch_op.drop_index("ix_releases_reward_model")
        batch_op.drop_index("ix_releases_commit_time")

    op.drop_table("releases")
    op.drop_table("reference_passes")
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.drop_index("ix_outbox_publish_time")

    op.drop_table("outbox")
    op.drop_table("leases")
    op.drop_table("ingest_offsets")
    op.drop_table("flags")
    with op.batch_alter_table("feedback_slots", schema=None) as batch_op:
        batch_op.drop_index("ix_feedback_slots_sign")
        batch_op.drop_index("ix_feedback_slots_rollout")
        batch_op.drop_index("ix_feedback_slots_newest")

    op.drop_table("feedback_slots")
    with op.batch_alter_table("feedback", schema=None) as batch_op:
        batch_op.drop_index("ix_feedback_slot")
        batch_op.drop_index("ix_feedback_id")
        batch_op.drop_index("ix_feedback_accept_time")

    op.drop_table("feedback")
    op.drop_table("features")
    with op.batch_alter_table("experiences", schema=None) as batch_op:
        batch_op.drop_index("ix_experiences_ready")
        batch_op.drop_index("ix_experiences_end_time")

    op.drop_table("experiences")
    op.drop_table("dead_letters")
    op.drop_table("controls")
    op.drop_table("control_acknowledgements")
    with op.batch_alter_table("candidates", schema=None) as batch_op:
        batch_op.drop_index("ix_candidates_undecided")
        batch_op.drop_index("ix_candidates_number")

    op.drop_table("candidates")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_index("ix_api_keys_tenant")

    op.drop_table("api_keys")
    op.drop_table("announcements")
    with op.batch_alter_table("acknowledgements", schema=None) as batch_op:
        batch_op.drop_index("ix_acknowledgements_version")

    op.drop_table("acknowledgements")
