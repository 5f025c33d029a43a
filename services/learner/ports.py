"""What the learner's three roles ask of one another and of the store.

*Ingest* writes experiences, the *trainer* claims them and submits candidates, the *releaser* decides and publishes.
They meet here alone, so that they can run as one process or apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.domain.rollout import Rollout

RATED_EXAMPLES = 5_000
"""The reward model is trained on so many newest thumbs at most; the store keeps their features."""


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A rollout joined with what was said of it and with its scores.

    `reference_log_probs` [T] at the rollout's temperature and `features` (fp16 bytes) come from the first score that
    arrived. `score_mean` / `score_spread` / `score_terms` are those of the pinned reward model, None where it has
    not scored the rollout yet. `thumb`: True up, False down, None not rated.
    """

    rollout: Rollout
    staleness: int
    thumb: bool | None
    thumb_feedback_id: str
    reference_log_probs: tuple[float, ...]
    features: bytes
    feature_layout: str
    score_mean: float | None = None
    score_spread: float | None = None
    score_terms: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class RatedExample:
    """One thumb that holds its slot, with the features of its rollout; in order of `accept_time`."""

    rollout_id: str
    feedback_id: str
    rater_id: str
    up: bool
    accept_time: datetime
    features: bytes
    feature_layout: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checkpoint that the trainer has written and would like to see released."""

    version: str
    kind: ReleaseKind
    epoch: int
    number: int
    parent_version: str
    checkpoint_path: str
    manifest_sha256: str
    base_model_digest: str
    reward_model_version: str
    rollout_ids: tuple[str, ...]
    """Policy: the batch. Reward model: rollouts of its training set."""
    feedback_ids: tuple[str, ...]
    """Thumbs trained on directly (reward model), or that rated the batch (policy)."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Among them what the gate asks for: "finite", "kl_per_answer", "distinct2_ratio", "entropy_ratio"."""


@dataclass(frozen=True, kw_only=True)
class ReleaseRow:
    """A release as the store has it."""

    version: str
    kind: ReleaseKind
    epoch: int
    number: int
    parent_version: str
    state: ReleaseState
    checkpoint_path: str
    manifest_sha256: str
    base_model_digest: str
    reward_model_version: str
    commit_time: datetime
    publish_time: datetime | None
    metrics: Mapping[str, float]
    gate_verdict: tuple[str, ...]


FORGOTTEN_LINE = "REFUSED it learned from somebody who has been forgotten since"
"""Verdict on a candidate that nothing else is wrong with: the rest of its batch may be used again."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate said; a line a check."""

    passed: bool
    lines: tuple[str, ...]

    @property
    def forgotten(self) -> bool:
        """Refused for `FORGOTTEN_LINE` alone."""
        return self.lines == (FORGOTTEN_LINE,)


class ExperienceStore(Protocol):
    """The trainer's side of the store. Every write is fenced by the epoch it was opened with (raises Fenced)."""

    def ready_count(self, *, policy_version: str) -> int:
        """Experiences that `claim` could give now: scored, PPO-eligible, fresh enough, on the ancestry, and (rated or
        older than `unrated_wait_s`)."""

    def claim(self, *, limit: int, policy_version: str, reward_model_version: str) -> list[Experience]:
        """Claims up to `limit` ready experiences, newest first, under a lease; those too stale are marked stale.
        Scores of `reward_model_version` are filled in where the store has them."""

    def unclaim(self, rollout_ids: Sequence[str]) -> None:
        """Gives claimed experiences back, open."""

    def discard(self, rollout_ids: Sequence[str], *, reason: str) -> None:
        """Claimed experiences become stale: their candidate was refused, or the update skipped."""

    def rated_examples(self, *, limit: int = RATED_EXAMPLES) -> list[RatedExample]:
        """The newest thumbs that hold their slots and have features, oldest first."""


class Candidates(Protocol):
    """Between trainer and releaser."""

    def next_number(self, kind: ReleaseKind) -> int:
        """Greatest number used by any release or candidate of the kind, plus one (0 where there is none)."""

    def submit(self, candidate: Candidate) -> None:
        """Hands a candidate to the releaser. The same version again changes nothing."""

    def verdict(self, version: str) -> Verdict | None:
        """None: not decided yet. Passed means committed in one transaction with its uses and its outbox row."""

    def live(self, kind: ReleaseKind) -> ReleaseRow | None:
        """The release that is announced as live."""

    def acknowledged_by(self, version: str) -> frozenset[str]:
        """Replicas that say they serve it."""


class RewardScorer(Protocol):
    """Scores at a pinned reward model, from features."""

    def rescore(
        self, items: Sequence[tuple[str, bytes]], *, reward_model_version: str, timeout_s: float
    ) -> list[tuple[float, float, tuple[tuple[str, float], ...]]]:
        """(rollout id, features) to (mean, spread, terms). Waits until the version is resident, at most `timeout_s`;
        then raises Unavailable."""
