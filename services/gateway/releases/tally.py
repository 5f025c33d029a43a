"""Thumbs by the version that began the answer, as this gateway saw them since its start. For show, not for training."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from services.shared.domain.feedback import Feedback, FeedbackKind, Thumb


@dataclass(frozen=True, kw_only=True)
class Thumbs:
    """Counts of one version."""

    answers: int
    up: int
    down: int


@dataclass(kw_only=True)
class _Answer:
    version: str
    revision: int = -1
    up: bool | None = None


class ThumbTally:
    """Remembers the newest `capacity` answers; a thumb on an older one is not counted."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._totals: defaultdict[str, int] = defaultdict(int)
        self._counts: defaultdict[str, dict[bool, int]] = defaultdict(lambda: {True: 0, False: 0})

    def answer_started(self, *, rollout_id: str, policy_version: str) -> None:
        """See AnswerObserver."""
        self._answers[rollout_id] = _Answer(version=policy_version)
        self._totals[policy_version] += 1
        while len(self._answers) > self._capacity:
            self._answers.popitem(last=False)

    def feedback_accepted(self, feedback: Feedback) -> None:
        """A newer thumb replaces the answer's older one; a retraction empties it."""
        answer = self._answers.get(feedback.rollout_id)
        if answer is None or feedback.kind is not FeedbackKind.THUMB or feedback.revision < answer.revision:
            return
        counts = self._counts[answer.version]
        if answer.up is not None:
            counts[answer.up] -= 1
        answer.revision = feedback.revision
        answer.up = feedback.body.up if isinstance(feedback.body, Thumb) and not feedback.retracted else None
        if answer.up is not None:
            counts[answer.up] += 1

    def forget(self, tenant: str, rater_id: str, rollout_ids: Sequence[str]) -> None:
        """Drops what was remembered of these answers; the counts, which name nobody, stay."""
        for rollout_id in rollout_ids:
            self._answers.pop(rollout_id, None)

    def of(self, version: str) -> Thumbs:
        """Zeroes for a version that answered nobody here."""
        counts = self._counts.get(version, {True: 0, False: 0})
        return Thumbs(answers=self._totals.get(version, 0), up=counts[True], down=counts[False])
