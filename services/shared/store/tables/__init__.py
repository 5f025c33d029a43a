"""All tables. A row that holds a tenant's data names its tenant."""

from __future__ import annotations

from services.shared.store.tables.access import api_keys, control_acknowledgements, controls, tombstones
from services.shared.store.tables.coordination import dead_letters, flags, ingest_offsets, leases, replicas
from services.shared.store.tables.experience import (
    experiences,
    features,
    reference_passes,
    rollout_versions,
    rollouts,
    scores,
)
from services.shared.store.tables.feedback import feedback, feedback_slots
from services.shared.store.tables.metadata import metadata
from services.shared.store.tables.releases import acknowledgements, announcements, candidates, outbox, releases, uses

__all__ = [
    "acknowledgements",
    "announcements",
    "api_keys",
    "candidates",
    "control_acknowledgements",
    "controls",
    "dead_letters",
    "experiences",
    "features",
    "feedback",
    "feedback_slots",
    "flags",
    "ingest_offsets",
    "leases",
    "metadata",
    "outbox",
    "reference_passes",
    "releases",
    "replicas",
    "rollout_versions",
    "rollouts",
    "scores",
    "tombstones",
    "uses",
]
