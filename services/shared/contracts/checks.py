"""Rules that values of events keep, whichever way they travel.

A fact is checked before it is encoded and after it is decoded, by the same functions: what one room may write, every
other can read. All raise InvalidInput with a stable reason and the field's name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from datetime import datetime

from services.shared.domain.errors import InvalidInput

MAX_ID_CHARS = 256
"""Ids, digests, names, pseudonyms."""
MAX_TEXT_CHARS = 400_000
"""A message or a response."""
MAX_INTEGER = 2**63 - 1
"""What a SQL BIGINT holds."""
LOG_PROB_SLACK = 1e-2
"""Nats that a log-probability may lie above 0 by rounding."""
LEAST_LOG_PROB = -1e30
"""Nats; below it a value is on its way out of single precision."""

_SHA256 = re.compile(r"^[0-9a-f]{64}$")


def check_id(field: str, value: str) -> None:
    """A value that must be there and be short."""
    if not value:
        raise InvalidInput(f"{field} is missing; fill it in.", reason="MISSING_FIELD", field=field)
    check_short(field, value)


def check_short(field: str, value: str) -> None:
    """A value that may be empty but must be short."""
    check_text(field, value, MAX_ID_CHARS)


def check_text(field: str, value: str, max_chars: int = MAX_TEXT_CHARS) -> None:
    """Text of a bounded length that UTF-8 can hold."""
    if len(value) > max_chars:
        raise InvalidInput(
            f"{field} has {len(value)} characters; at most {max_chars} are taken.", reason="TEXT_TOO_LARGE", field=field
        )
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidInput(
            f"{field} holds half of a surrogate pair, which is no text; send whole characters.",
            reason="BAD_TEXT",
            field=field,
        )


def check_sha256(field: str, value: str) -> None:
    """64 lower-case hex digits."""
    if not _SHA256.match(value):
        raise InvalidInput(f"{field} must be a sha256 in 64 lower-case hex digits.", reason="BAD_DIGEST", field=field)


def check_integer(field: str, value: int, *, least: int = 0, most: int = MAX_INTEGER) -> None:
    """An integer within bounds."""
    if not least <= value <= most:
        raise InvalidInput(f"{field} is {value}; it must be {least} to {most}.", reason="OUT_OF_RANGE", field=field)


def check_number(field: str, value: float, *, least: float = -math.inf, most: float = math.inf) -> None:
    """A finite number within bounds."""
    if not math.isfinite(value):
        raise InvalidInput(f"{field} is {value}; it must be a finite number.", reason="NOT_FINITE", field=field)
    if not least <= value <= most:
        raise InvalidInput(f"{field} is {value}; it must be {least} to {most}.", reason="OUT_OF_RANGE", field=field)


def check_count(field: str, values: Collection[object], most: int) -> None:
    """A bounded number of items."""
    if len(values) > most:
        raise InvalidInput(f"{field} has {len(values)} items; at most {most}.", reason="TOO_MANY_ITEMS", field=field)


def check_log_probs(field: str, values: Sequence[float], *, tokens: int | None = None) -> None:
    """Finite, not above 0, and one a token where `tokens` is given."""
    if tokens is not None and len(values) != tokens:
        raise InvalidInput(
            f"{field} has {len(values)} values for {tokens} response tokens; it must have one a token.",
            reason="LENGTH_MISMATCH",
            field=field,
        )
    if not all(map(math.isfinite, values)) or min(values, default=0.0) < LEAST_LOG_PROB:
        raise InvalidInput(
            f"{field} holds a value that is not finite in single precision.", reason="NOT_FINITE", field=field
        )
    if values and max(values) > LOG_PROB_SLACK:
        raise InvalidInput(
            f"{field} holds {max(values)}; a log-probability is at most 0.", reason="POSITIVE_LOG_PROB", field=field
        )


def check_time(field: str, value: datetime | None) -> None:
    """A time that knows its zone; None is another's concern."""
    if value is not None and value.tzinfo is None:
        raise InvalidInput(f"{field} has no time zone; give it in UTC.", reason="NAIVE_TIME", field=field)
