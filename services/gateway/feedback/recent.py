"""What this gateway acknowledged lately, so that sending again answers the same, and a state is known before ingest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from services.gateway.feedback.turns import StatementId
from services.shared.domain.feedback import Comment, Edit, Feedback, FeedbackBody, FeedbackKind, FeedbackState


class Acknowledged(NamedTuple):
    """A statement and what its sender was told. It holds no text: tens of thousands of these are kept."""

    feedback_id: str
    rollout_id: str
    rater_id: str
    kind: FeedbackKind
    revision: int
    retracted: bool
    said: FeedbackBody | str | None
    """The body; in place of a text its digest."""
    state: FeedbackState

    @classmethod
    def of(cls, feedback: Feedback, state: FeedbackState) -> Acknowledged:
        """What is kept of it."""
        return cls(
            feedback_id=feedback.feedback_id,
            rollout_id=feedback.rollout_id,
            rater_id=feedback.rater_id,
            kind=feedback.kind,
            revision=feedback.revision,
            retracted=feedback.retracted,
            said=_said(feedback),
            state=state,
        )

    def says_the_same(self, other: Feedback) -> bool:
        """Equal in all that a sender decides, the revision apart: an id keeps the one it was first stored with."""
        return (self.rollout_id, self.kind, self.said, self.retracted) == (
            other.rollout_id,
            other.kind,
            _said(other),
            other.retracted,
        )


class RecentFeedback:
    """The newest `capacity` acknowledgements: who sends again what is older writes it again, which changes nothing."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[StatementId, Acknowledged] = OrderedDict()
        self._by_tenant: dict[tuple[str, str], dict[StatementId, None]] = {}
        """The entries' names by (tenant, feedback id), the newest last: raters may choose the same id."""

    def find(self, statement_id: StatementId) -> Acknowledged | None:
        """None: unknown, or too long ago."""
        return self._entries.get(statement_id)

    def find_of_tenant(self, tenant: str, feedback_id: str) -> Acknowledged | None:
        """The newest under that id, whoever said it."""
        names = self._by_tenant.get((tenant, feedback_id))
        return None if names is None else self._entries[next(reversed(names))]

    def remember(self, statement_id: StatementId, acknowledged: Acknowledged) -> None:
        """Forgets the oldest when full."""
        self._entries[statement_id] = acknowledged
        self._by_tenant.setdefault(_of_tenant(statement_id), {})[statement_id] = None
        while len(self._entries) > self._capacity:
            self._drop(next(iter(self._entries)))

    def forget(self, tenant: str, rater_id: str, rollout_ids: Sequence[str]) -> None:
        """Drops what the rater said, and what anybody said of these rollouts."""
        gone = set(rollout_ids)
        theirs = [
            name
            for name, known in self._entries.items()
            if name.tenant == tenant and (name.rater_id == rater_id or known.rollout_id in gone)
        ]
        for name in theirs:
            self._drop(name)

    def _drop(self, name: StatementId) -> None:
        del self._entries[name]
        under = _of_tenant(name)
        del self._by_tenant[under][name]
        if not self._by_tenant[under]:
            del self._by_tenant[under]


def _of_tenant(name: StatementId) -> tuple[str, str]:
    return name.tenant, name.feedback_id


def _said(feedback: Feedback) -> FeedbackBody | str | None:
    return feedback.digest if isinstance(feedback.body, (Edit, Comment)) else feedback.body
