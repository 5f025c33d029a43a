"""Where ids and the time come from in a running service (tests pass their own)."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import uuid_utils


def new_id() -> str:
    """A UUIDv7 (RFC 9562): sortable by creation time."""
    return str(uuid_utils.uuid7())


def minted_time(uuid: str) -> datetime | None:
    """When a UUIDv7 was minted, to the millisecond; None for another id, and for a time past the year 9999."""
    try:
        parsed = UUID(uuid)
        return datetime.fromtimestamp((parsed.int >> 80) / 1000, UTC) if parsed.version == 7 else None
    except (ValueError, OverflowError):
        return None


def least_id(time: datetime) -> str:
    """The first characters of a UUIDv7 of this time: ids of earlier times are less, all others greater."""
    milliseconds = f"{int(time.timestamp() * 1000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)
