"""Column types that mean the same on SQLite and PostgreSQL, and how lists of numbers are packed.

Times are whole microseconds since 1970, UTC: exact, ordered by plain comparison, and without the time zones that
SQLite forgets. Text is compared by code points, whatever language the database was made for, and may hold any
character. JSON is canonical text, so that equal values are equal bytes. Token ids are packed as little-endian uint32,
log-probs as little-endian float32, which is what the events hold.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ESCAPE = "\ufdd0"  # a code point that Unicode keeps free for such uses


def to_micros(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The inverse of `to_micros`."""
    return _EPOCH + timedelta(microseconds=micros)


class UtcTime(TypeDecorator[datetime]):
    """A timezone-aware datetime, stored as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To SQL."""
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """From SQL."""
        return None if value is None else from_micros(value)


class ExactText(TypeDecorator[str]):
    """Text whose order and equality are those of its code points, as in Python; NUL, which PostgreSQL refuses and a
    model or a client may write, is stored escaped.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """SQLite compares bytes by itself."""
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """To SQL."""
        if value is None or ("\0" not in value and _ESCAPE not in value):
            return value
        return value.replace(_ESCAPE, _ESCAPE + "1").replace("\0", _ESCAPE + "0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """From SQL."""
        if value is None or _ESCAPE not in value:
            return value
        return value.replace(_ESCAPE + "0", "\0").replace(_ESCAPE + "1", _ESCAPE)


class CanonicalJson(TypeDecorator[Any]):
    """Any JSON value, stored as text with sorted keys and no blanks."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """To SQL."""
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """From SQL."""
        return None if value is None else json.loads(value)


def canonical_json(value: Any) -> str:
    """Equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as uint32."""
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_ids(packed: bytes) -> tuple[int, ...]:
    """The inverse of `pack_ids`."""
    return struct.unpack(f"<{len(packed) // 4}I", packed)


def pack_floats(values: Sequence[float]) -> bytes:
    """Log-probs as float32."""
    return struct.pack(f"<{len(values)}f", *values)


def unpack_floats(packed: bytes) -> tuple[float, ...]:
    """The inverse of `pack_floats`, for values that were float32."""
    return struct.unpack(f"<{len(packed) // 4}f", packed)
