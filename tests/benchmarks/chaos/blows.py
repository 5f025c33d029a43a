"""What was done to the system, and when: kills and network faults, each a JSON line as it happens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

KILL = "kill"


@dataclass(frozen=True, kw_only=True)
class Blow:
    """`what`: kill, cut, slow, reset. `at`, `until`: seconds since 1970; a kill's `until` is when it was up again."""

    what: str
    target: str
    at: float
    until: float


class BlowLog:
    """Appends; keeps what it has."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self.blows: list[Blow] = []

    def note(self, what: str, target: str, *, at: float) -> Blow:
        """It ends now."""
        blow = Blow(what=what, target=target, at=at, until=self._now())
        self.blows.append(blow)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(blow)) + "\n")
        return blow

    def kills(self) -> Counter[str]:
        """By victim."""
        return kills_of(self.blows)


def kills_of(blows: Sequence[Blow]) -> Counter[str]:
    """How often each victim was killed."""
    return Counter(blow.target for blow in blows if blow.what == KILL)
