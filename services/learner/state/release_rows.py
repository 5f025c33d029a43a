"""Candidates and releases to SQL rows and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.learner.ports import Candidate, ReleaseRow, Verdict
from services.learner.state.rows import Row
from services.shared.domain.release import ReleaseKind, ReleaseState

_SHARED = (
    "version",
    "epoch",
    "number",
    "parent_version",
    "checkpoint_path",
    "manifest_sha256",
    "base_model_digest",
    "reward_model_version",
)


def candidate_row(candidate: Candidate, submit_time: datetime) -> Row:
    """A row of `candidates`, not decided."""
    return {name: getattr(candidate, name) for name in _SHARED} | {
        "kind": candidate.kind.value,
        "rollout_ids": list(candidate.rollout_ids),
        "feedback_ids": list(candidate.feedback_ids),
        "metrics": dict(candidate.metrics),
        "submit_time": submit_time,
    }


def candidate_from(row: Any) -> Candidate:
    """The candidate of a row of `candidates`."""
    return Candidate(
        **{name: getattr(row, name) for name in _SHARED},
        kind=ReleaseKind(row.kind),
        rollout_ids=tuple(row.rollout_ids),
        feedback_ids=tuple(row.feedback_ids),
        metrics=row.metrics,
    )


def decided(kind: ReleaseKind, verdict: Verdict) -> Row:
    """New values of a candidate's row. A reward model's lists of thousands of ids have done their service: `uses` and
    the manifest say what it was trained on."""
    row: Row = {"passed": verdict.passed, "verdict": list(verdict.lines)}
    return row | {"rollout_ids": [], "feedback_ids": []} if kind is ReleaseKind.REWARD_MODEL else row


def release_row(candidate: Candidate, verdict: Verdict, state: ReleaseState, commit_time: datetime) -> Row:
    """A row of `releases` made of a decided candidate."""
    return {name: getattr(candidate, name) for name in _SHARED} | {
        "kind": candidate.kind.value,
        "state": state.value,
        "experiences": len(set(candidate.rollout_ids)),
        "commit_time": commit_time,
        "metrics": dict(candidate.metrics),
        "gate_verdict": list(verdict.lines),
    }


def release_from(row: Any) -> ReleaseRow:
    """The release of a row of `releases`."""
    return ReleaseRow(
        **{name: getattr(row, name) for name in _SHARED},
        kind=ReleaseKind(row.kind),
        state=ReleaseState(row.state),
        commit_time=row.commit_time,
        publish_time=row.publish_time,
        metrics=row.metrics,
        gate_verdict=tuple(row.gate_verdict),
    )
