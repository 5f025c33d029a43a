"""What is shown of releases and of training. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.shared.domain.release import ReleaseKind, ReleaseState


@dataclass(frozen=True, kw_only=True)
class ReleaseFact:
    """One release; `metrics` hold finite numbers alone."""

    version: str
    kind: ReleaseKind
    parent_version: str
    state: ReleaseState
    commit_time: float
    publish_time: float | None
    first_served_time: float | None
    reward_model_version: str
    experiences: int
    metrics: dict[str, float]
    gate_verdict: tuple[str, ...]
    acknowledged_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LearnerStatus:
    """Where training stands. None: not known yet."""

    phase: str
    paused: bool
    waiting_reason: str
    policy_version: str
    reward_model_version: str
    rollouts: int
    feedback: int
    ready: int
    used: int
    stale: int
    thumbs_up: int
    thumbs_down: int
    reward_auroc: float | None
    reward_auroc_low95: float | None
    thumb_to_token_p50_s: float | None
    thumb_to_token_p99_s: float | None


class ReleaseSource(Protocol):
    """The learner, as far as the board asks it."""

    async def releases(self, *, timeout_s: float) -> tuple[ReleaseFact, ...]:
        """Newest first. Raises Unavailable, DeadlineExceeded."""

    async def status(self, *, timeout_s: float) -> LearnerStatus:
        """Raises Unavailable, DeadlineExceeded."""
