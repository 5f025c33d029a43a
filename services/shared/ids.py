"""Where ids and the time come from in a running service (tests pass their own)."""

from __future__ import annotations

from datetime import UTC, datetime

import uuid_utils


def new_id() -> str:
    """A UUIDv7 (RFC 9562): sortable by creation time."""
    return str(uuid_utils.uuid7())


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)
