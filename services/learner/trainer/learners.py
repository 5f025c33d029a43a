"""What the cycle asks of a learner, whatever the algorithm: restore a release, learn, measure, save.

A learner holds one version at a time: the live release it was restored to, or the candidate that it has made of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from services.learner.ports import Experience, RatedExample
from services.shared.domain.reward_terms import Terms, total


@dataclass(frozen=True, kw_only=True)
class ScoredExperience:
    """An experience with what the pinned reward model says of it, terms of the response included."""

    experience: Experience
    mean: float
    spread: float
    terms: Terms

    @property
    def reward(self) -> float:
        """The sum of the terms, in thumb units."""
        return total(self.terms)


@dataclass(frozen=True, kw_only=True)
class PolicyUpdate:
    """What an update did. `skipped`: why nothing was learned; empty where something was."""

    skipped: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class PolicyLearner(Protocol):
    """Holds the policy and all that training it needs between updates."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the result beside the data, as JSON values, for the manifest."""

    def reset(self) -> None:
        """Becomes release 0: the base policy, nothing learned."""

    def restore(self, folder: Path) -> None:
        """Becomes a release written by `save`, to go on as if it had never stopped."""

    def update(self, batch: Sequence[ScoredExperience]) -> PolicyUpdate:
        """Learns from a batch, once. Where it skips, nothing has changed; where it raises, it must be restored."""

    def measure(self, batch: Sequence[ScoredExperience]) -> Mapping[str, float]:
        """Answers prompts of the batch and gives what the gate asks for: "finite", "kl_per_answer",
        "distinct2_ratio", "entropy_ratio"."""

    @property
    def kept_rollouts(self) -> frozenset[str]:
        """Rollouts of which it keeps words from one batch to the next."""

    def forget(self, rollout_ids: Collection[str]) -> None:
        """Keeps nothing of these any more."""

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Writes the release's files into an empty folder: name in the release to path."""


@dataclass(frozen=True, kw_only=True)
class RewardUpdate:
    """What training the reward model did."""

    rollout_ids: tuple[str, ...]
    feedback_ids: tuple[str, ...]
    metrics: Mapping[str, float]


class RewardLearner(Protocol):
    """Holds the reward model, its test on thumbs it had not seen, and which thumbs it has seen."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """As in PolicyLearner."""

    def reset(self) -> None:
        """Becomes release 0: knows nothing."""

    def restore(self, folder: Path, *, rollout_ids: Sequence[str], feedback_ids: Sequence[str]) -> None:
        """Becomes a release written by `save`; the ids are those of its manifest."""

    def unseen(self, examples: Sequence[RatedExample]) -> int:
        """How many of these thumbs it has not been trained on."""

    def train(self, examples: Sequence[RatedExample]) -> RewardUpdate | None:
        """Tests itself on the unseen thumbs, then trains on all. None: too few of a sign to learn anything."""

    def no_skill(self) -> str:
        """Why PPO must wait for it; empty where it has proved skill."""

    def tested(self) -> tuple[float, float] | None:
        """Prequential AUROC and its lower 95% bound; None before both signs were met."""

    def save(self, folder: Path) -> Mapping[str, Path]:
        """As in PolicyLearner."""
