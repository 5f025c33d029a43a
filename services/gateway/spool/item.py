"""What lies in the spool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from services.shared.contracts.feedback import encode_feedback
from services.shared.domain.feedback import Feedback

ROW_BYTES = 512
"""What a row takes on disk beside its event, indexes included; part of an item's size."""


class SpoolKey(NamedTuple):
    """Names a statement: its slot and its id. The same key is stored once."""

    tenant: str
    rollout_id: str
    rater_id: str
    kind: str
    feedback_id: str

    @property
    def rollout(self) -> tuple[str, str]:
        """Within it the order of arrival is kept."""
        return self.tenant, self.rollout_id


@dataclass(frozen=True, kw_only=True)
class SpoolItem:
    """A statement on its way to the log."""

    key: SpoolKey
    content: str
    """Digest of what its sender decides, the revision apart: tells a repetition from another use of the id."""
    event: bytes

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        return len(self.event) + ROW_BYTES


@dataclass(frozen=True, kw_only=True)
class StoredItem:
    """An item on disk. Positions grow in the order of arrival and are never used twice."""

    position: int
    spooled_time: float
    """Seconds since 1970."""
    refused_reason: str = ""
    """Why Kafka will never take it; "": it may."""
    item: SpoolItem


def spool_item(feedback: Feedback, event: bytes | None = None) -> SpoolItem:
    """The item of a statement; `event` where it is encoded already."""
    return SpoolItem(
        key=SpoolKey(
            tenant=feedback.meta.tenant,
            rollout_id=feedback.rollout_id,
            rater_id=feedback.rater_id,
            kind=feedback.kind.value,
            feedback_id=feedback.feedback_id,
        ),
        content=f"{feedback.digest}{'-retracted' if feedback.retracted else ''}",
        event=encode_feedback(feedback) if event is None else event,
    )
