"""A failure that lasts is told of once: when it begins, and when its reason changes."""

from __future__ import annotations


class LastTold:
    """What was told last of one thing that is tried again and again. Belongs to one thread or event loop."""

    def __init__(self) -> None:
        self._reason: str | None = None

    def is_news(self, reason: str) -> bool:
        """It failed. True where that was not told yet; from now on it counts as told."""
        news, self._reason = reason != self._reason, reason
        return news

    def succeeded(self) -> None:
        """The next failure is news again."""
        self._reason = None
