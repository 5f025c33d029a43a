"""Rounds of retention, from their beginning to their end."""

from __future__ import annotations

from typing import Any

from services.learner.state.retention_rounds import RetentionRounds


def run_round(keeper: RetentionRounds[Any]) -> int:
    """Turns until the round has ended; how much was deleted."""
    deleted = 0
    for _ in range(200):
        deleted += keeper.step()
        if keeper.between_rounds:
            return deleted
    raise AssertionError("the round does not end")
