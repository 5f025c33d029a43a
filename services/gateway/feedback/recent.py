"""What this gateway acknowledged lately, so that sending again answers the same, and a state is known before ingest."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

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
    """The newest `capacity` acknowledgements, by rater and feedback id: nobody meets another's ids."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[tuple[str, str], Acknowledged] = OrderedDict()

    def find(self, *, rater_id: str, feedback_id: str) -> Acknowledged | None:
        """None: unknown, or too long ago."""
        return self._entries.get((rater_id, feedback_id))

    def remember(self, acknowledged: Acknowledged) -> None:
        """Forgets the oldest when full."""
        feedback = acknowledged.feedback
        self._entries[feedback.rater_id, feedback.feedback_id] = acknowledged
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
