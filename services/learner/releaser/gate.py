"""The gate: what a candidate must hold to before users meet it.

It denies by default: a measure that is missing, or is no number, refuses the candidate. Each check says its bound and
its reason in one line, kept with the release. Pure functions of the candidate's own measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from services.learner.ports import Candidate, Verdict
from services.shared.domain.release import ReleaseKind
from services.shared.settings.model import GateSettings


@dataclass(frozen=True, kw_only=True)
class Check:
    """A measure with its bounds, and why it is asked for."""

    metric: str
    least: float = -math.inf
    most: float = math.inf
    reason: str

    def apply(self, metrics: Mapping[str, float]) -> tuple[bool, str]:
        """Whether it holds, and a line that says so."""
        value = metrics.get(self.metric)
        if value is None:
            return False, f"REFUSED {self.metric} is missing ({self.reason})"
        holds = self.least <= value <= self.most and not math.isnan(value)
        return holds, f"{'ok' if holds else 'REFUSED'} {self.metric} {value:.4g}{self._bound()} ({self.reason})"

    def _bound(self) -> str:
        least = f", at least {self.least:g}" if self.least > -math.inf else ""
        most = f", at most {self.most:g}" if self.most < math.inf else ""
        return least + most


def policy_checks(settings: GateSettings) -> tuple[Check, ...]:
    """What a policy must hold to."""
    return (
        Check(metric="finite", least=1, reason="weights, losses and gradients are numbers"),
        Check(metric="kl_per_answer", most=settings.max_kl_nats, reason="nats an answer has moved from the reference"),
        Check(metric="distinct2_ratio", least=settings.min_distinct2_ratio, reason="answers still differ: no collapse"),
        Check(metric="entropy_ratio", least=settings.min_entropy_ratio, reason="tokens are still drawn: no collapse"),
    )


def reward_model_checks() -> tuple[Check, ...]:
    """What a reward model must hold to. Whether it has the skill to teach is asked by the trainer before PPO."""
    return (
        Check(metric="finite", least=1, reason="weights are numbers"),
        Check(metric="auroc", least=0, most=1, reason="tested on thumbs before it was trained on them"),
    )


def judge(candidate: Candidate, *, settings: GateSettings, epoch: int, live_version: str) -> Verdict:
    """The verdict on a candidate under the releaser's epoch, while `live_version` is live."""
    checks = policy_checks(settings) if candidate.kind is ReleaseKind.POLICY else reward_model_checks()
    results = [_of_this_epoch(candidate, epoch), _of_live_parent(candidate, live_version)]
    results += [check.apply(candidate.metrics) for check in checks]
    return Verdict(passed=all(holds for holds, _ in results), lines=tuple(line for _, line in results))


def _of_this_epoch(candidate: Candidate, epoch: int) -> tuple[bool, str]:
    if candidate.epoch == epoch:
        return True, f"ok epoch {epoch}"
    return False, f"REFUSED its trainer's epoch {candidate.epoch} is over, this is {epoch}: its claims are void"


def _of_live_parent(candidate: Candidate, live_version: str) -> tuple[bool, str]:
    if candidate.parent_version == live_version:
        return True, f"ok trained from the live version {live_version}"
    return False, f"REFUSED trained from {candidate.parent_version}, but {live_version} is live: training starts there"
