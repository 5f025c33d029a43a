"""What scripted engine, scorer and trainer agree on, so that the whole loop runs in tests without a model.

The *scripted base model* has no weights. Its identity, and the layout of the features that are made of a response in
its name, stand here because generator, reward and learner must agree on them without importing one another.
"""

from __future__ import annotations

import hashlib
from typing import Final

BASE_MODEL_NAME: Final = "scripted"
BASE_MODEL_DIGEST: Final = hashlib.sha256(b"thumbloop scripted base model, 1").hexdigest()
"""Stands where the sha256 of a real base model's files would."""

FEATURES: Final = 64
"""Share of each of so many classes among the response's tokens; a token's class is its id modulo `FEATURES`."""
FEATURE_LAYOUT: Final = f"scripted-bag/{FEATURES}"

VOCABULARY: Final = 1 << 20
"""Token ids run below this; it leaves room for engines that make tokens of bytes or of words."""
END_TOKEN: Final = 256
"""Text becomes its UTF-8 bytes as token ids 0 to 255; this one ends a response."""


def encode(text: str) -> tuple[int, ...]:
    """Text to token ids, without an end token."""
    return tuple(text.encode())


def decode(token_ids: tuple[int, ...]) -> str:
    """Token ids to text; ids that are no bytes are left out, broken characters replaced."""
    return bytes(token for token in token_ids if token < END_TOKEN).decode(errors="replace")
