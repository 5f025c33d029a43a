"""Text that others wrote, on its way to a terminal: shown as it is, obeyed in nothing."""

from __future__ import annotations

from rich.markup import escape


def plain(text: str) -> str:
    """For rich's markup: brackets stand for themselves, and what does not print is shown as an escape."""
    return escape("".join(char if char.isprintable() else ascii(char)[1:-1] for char in text))
