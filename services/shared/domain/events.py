"""What every event carries, and where time comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

Clock = Callable[[], datetime]
"""Gives the time in UTC, timezone-aware. Passed in everywhere, so that tests decide what time it is."""

NewId = Callable[[], str]
"""Gives a new UUIDv7 as text."""

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class EventMeta:
    """Provenance of an event."""

    event_id: str
    deployment: str
    tenant: str
    event_time: datetime
    schema_version: int = SCHEMA_VERSION
    traceparent: str = ""
