"""The clients' journals: JSON lines on disk. What was acknowledged is synced before it counts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from tests.benchmarks.chaos.statements import Acknowledged, Answer, Ledger, Statement, Told


class ClientJournal:
    """One client's. `ledger`, where several journals may meet, is kept in step with the file."""

    def __init__(self, path: Path, ledger: Ledger, now: Callable[[], float]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._ledger = ledger
        self._now = now

    def answer(self, answer: Answer) -> None:
        """An answer that can be rated, whole or not."""
        self._note("answer", asdict(answer))

    def chat_failed(self, *, cut: bool, why: str) -> None:
        """A chat that was refused, or broke off."""
        self._note("cut" if cut else "refused_chat", {"why": why[:200]})

    def says(self, statement: Statement) -> None:
        """Before the first try."""
        self._note("says", asdict(statement))

    def acknowledged(self, feedback_id: str, *, state: str, revision: int) -> None:
        """A 2xx. On disk when this returns."""
        self._note(
            "acknowledged", {"feedback_id": feedback_id, "state": state, "revision": revision, "at": self._now()}
        )
        os.fsync(self._file.fileno())

    def uncertain(self, feedback_id: str, why: str) -> None:
        """A try that got no answer, or one that promises nothing."""
        self._note("uncertain", {"feedback_id": feedback_id, "why": why[:200], "at": self._now()})

    def refused(self, feedback_id: str, why: str) -> None:
        """A 4xx."""
        self._note("refused", {"feedback_id": feedback_id, "why": why[:300], "at": self._now()})

    def close(self) -> None:
        """Twice is once."""
        self._file.close()

    def _note(self, event: str, facts: dict[str, Any]) -> None:
        entry = {"event": event, **facts}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        enter(self._ledger, entry)


def read_journals(paths: Iterable[Path]) -> Ledger:
    """What the files say."""
    ledger = Ledger()
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                enter(ledger, json.loads(line))
    return ledger


def enter(ledger: Ledger, entry: dict[str, Any]) -> None:
    """Adds one line's news to the ledger."""
    facts = {name: value for name, value in entry.items() if name != "event"}
    match entry["event"]:
        case "answer":
            answer = Answer(**{**facts, "kinds": tuple(facts["kinds"])})
            ledger.answers[answer.rollout_id] = answer
        case "cut":
            ledger.cut_chats += 1
        case "refused_chat":
            ledger.refused_chats += 1
        case "says":
            ledger.statements[facts["feedback_id"]] = Told(statement=Statement(**facts))
        case "acknowledged":
            ledger.statements[facts.pop("feedback_id")].acknowledged.append(Acknowledged(**facts))
        case "uncertain":
            ledger.statements[facts["feedback_id"]].uncertain += 1
        case "refused":
            ledger.statements[facts["feedback_id"]].refused += 1
        case unknown:
            raise ValueError(f"a journal holds {unknown!r}, which no client writes")
