"""Reading from a bus until enough is there, with a deadline."""

from __future__ import annotations

import time
from typing import Protocol

from services.shared.bus.interface import LogReader, Record
from services.shared.domain.errors import Unavailable

DEADLINE_S = 30.0


class Polls(Protocol):
    """Either reader."""

    def poll(self, timeout_s: float, max_records: int = 500) -> list[Record]: ...


def read_count(reader: Polls, count: int, *, deadline_s: float = DEADLINE_S, patient: bool = False) -> list[Record]:
    """Polls until at least `count` records came. `patient` goes on through Unavailable."""
    deadline = time.monotonic() + deadline_s
    records: list[Record] = []
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came in {deadline_s} s"
        try:
            records += reader.poll(0.5)
        except Unavailable:
            if not patient:
                raise
    return records


def assign_all(reader: LogReader, topic: str) -> None:
    """From the beginning of every partition."""
    reader.assign(reader.beginning_offsets(reader.places(topic)))
