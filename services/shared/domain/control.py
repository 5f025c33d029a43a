"""Orders of the learner to all consumers."""

from __future__ import annotations

from dataclasses import dataclass

from services.shared.domain.events import EventMeta


@dataclass(frozen=True, kw_only=True)
class Forget:
    """Remove what a person said and was told."""

    rater_id: str
    rollout_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """Take feedback out of training without deleting it."""

    rater_ids: tuple[str, ...] = ()
    feedback_ids: tuple[str, ...] = ()
    reason: str


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Stop or restart training; serving goes on."""

    paused: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Control:
    """An order. `order` None: one that this version does not know; skip it and say so."""

    meta: EventMeta
    control_id: str
    epoch: int
    order: Forget | Quarantine | Pause | None
