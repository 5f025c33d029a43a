"""How the measuring side cuts an answer into words: one rule for tastes, loops and diversity."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case; an apostrophe inside a word is part of it, always as ``'``."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]
