"""What the clients saw: every acknowledged thumb and every answer, a JSON line each, written as it happens.

The journal is the clients' own record. After a run it is compared, id by id, with the learner's store.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True, kw_only=True)
class AcknowledgedThumb:
    """The gateway answered 2xx."""

    feedback_id: str
    rollout_id: str
    policy_version: str
    up: bool
    acknowledged_at: float
    """Seconds since 1970, the client's clock."""


@dataclass
class Counts:
    """What happened to the requests, retries switched off."""

    answers: int = 0
    refused: int = 0
    """Requests that got no answer: an error status, or no connection."""
    cut: int = 0
    """Answers that broke off before their end."""
    thumbs_acknowledged: int = 0
    thumbs_refused: int = 0
    errors: list[str] = field(default_factory=list)
    """The first few, for people."""


class Journal:
    """Appends to a file; opened afresh for each run."""

    MAX_ERRORS = 20

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.counts = Counts()
        self._file: TextIO = path.open("w", encoding="utf-8")

    def thumb(self, thumb: AcknowledgedThumb) -> None:
        """A thumb was acknowledged."""
        self.counts.thumbs_acknowledged += 1
        self._write({"event": "thumb", **asdict(thumb)})

    def answer(self, *, rollout_id: str, policy_version: str, prompt: str, text: str) -> None:
        """An answer came to its end."""
        self.counts.answers += 1
        line = {"rollout_id": rollout_id, "policy_version": policy_version, "prompt": prompt, "text": text}
        self._write({"event": "answer", **line})

    def refused(self, why: str) -> None:
        """A chat request got no answer."""
        self.counts.refused += 1
        self._error("refused", why)

    def cut(self, why: str) -> None:
        """An answer broke off."""
        self.counts.cut += 1
        self._error("cut", why)

    def thumb_refused(self, why: str) -> None:
        """A thumb was not acknowledged."""
        self.counts.thumbs_refused += 1
        self._error("thumb_refused", why)

    def close(self) -> None:
        """Twice is once."""
        self._file.close()

    def _error(self, event: str, why: str) -> None:
        if len(self.counts.errors) < self.MAX_ERRORS:
            self.counts.errors.append(f"{event}: {why}")
        self._write({"event": event, "why": why})

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def read_thumbs(path: Path) -> Iterator[AcknowledgedThumb]:
    """The acknowledged thumbs of a journal."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry.pop("event") == "thumb":
                yield AcknowledgedThumb(**entry)
