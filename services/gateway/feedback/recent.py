"""What this gateway acknowledged lately, so that sending again answers the same, and a state is known before ingest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.feedback.turns import StatementId
from services.shared.domain.feedback import Feedback, FeedbackState


@dataclass(frozen=True, kw_only=True)
class Acknowledged:
    """A statement and what its sender was told."""

    feedback: Feedback
    state: FeedbackState

    def says_the_same(self, other: Feedback) -> bool:
        """Equal in all that a sender decides, the revision apart: an id keeps the one it was first stored with."""
        mine = self.feedback
        return (mine.rollout_id, mine.kind, mine.digest, mine.retracted) == (
            other.rollout_id,
            other.kind,
            other.digest,
            other.retracted,
        )


class RecentFeedback:
    """The newest `capacity` acknowledgements: who sends again what is older writes it again, which changes nothing."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[StatementId, Acknowledged] = OrderedDict()

    def find(self, statement_id: StatementId) -> Acknowledged | None:
        """None: unknown, or too long ago."""
        return self._entries.get(statement_id)

    def remember(self, acknowledged: Acknowledged) -> None:
        """Forgets the oldest when full."""
        feedback = acknowledged.feedback
        self._entries[StatementId(feedback.meta.tenant, feedback.rater_id, feedback.feedback_id)] = acknowledged
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def forget(self, tenant: str, rater_id: str, rollout_ids: Sequence[str]) -> None:
        """Drops what the rater said, and what anybody said of these rollouts."""
        gone = set(rollout_ids)
        theirs = [
            name
            for name, known in self._entries.items()
            if name.tenant == tenant and (name.rater_id == rater_id or known.feedback.rollout_id in gone)
        ]
        for name in theirs:
            del self._entries[name]
