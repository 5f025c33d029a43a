"""Records to facts, or to the reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from services.shared.bus.interface import Record
from services.shared.contracts.feedback import decode_feedback
from services.shared.contracts.rollouts import decode_rollout
from services.shared.contracts.scores import decode_score
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.domain.errors import Unprocessable
from services.shared.domain.feedback import Feedback
from services.shared.domain.rollout import Rollout
from services.shared.domain.score import Score

Fact = Rollout | Feedback | Score

_DECODERS: dict[str, Callable[[bytes], Fact]] = {
    ROLLOUTS: decode_rollout,
    FEEDBACK: decode_feedback,
    SCORES: decode_score,
}

TOPICS = tuple(_DECODERS)
"""What ingest reads."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """A record and what it holds: a fact, or `error` says why it cannot be used."""

    record: Record
    fact: Fact | None
    error: Unprocessable | None = None

    @property
    def event_id(self) -> str:
        """The event's id; of an unreadable one the digest of its bytes."""
        if self.fact is not None:
            return self.fact.meta.event_id
        return f"sha256:{hashlib.sha256(self.record.value).hexdigest()}"


def read(record: Record, *, deployment: str) -> Read:
    """Never raises for a bad event: whatever is wrong with its bytes is a reason to dead-letter it."""
    try:
        fact = _DECODERS[record.place.topic](record.value)
    except Unprocessable as error:
        return Read(record=record, fact=None, error=error)
    if fact.meta.deployment != deployment:
        foreign = Unprocessable(
            f"the event is of deployment {fact.meta.deployment!r}, this is {deployment!r}; its producer writes to the"
            " wrong Kafka, or under a wrong name.",
            reason="OTHER_DEPLOYMENT",
            field="meta.deployment",
        )
        return Read(record=record, fact=None, error=foreign)
    return Read(record=record, fact=fact)
