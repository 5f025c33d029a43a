"""Answers measured once by the base model, as the guard's calibration wrote them into ``fixtures/``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from services.simulate.guard import AnswerStatistics

FOLDER = Path(__file__).with_name("fixtures")


@dataclass(frozen=True, kw_only=True)
class MeasuredAnswer:
    """A prompt, an answer to it, and what the base model measured of the two."""

    prompt: str
    answer: str
    statistics: AnswerStatistics


def load_measured(kind: str) -> list[MeasuredAnswer]:
    """``base``: the base model's own answers; the other kinds are those of ``services.simulate.guard.controls``."""
    rows = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    return [
        MeasuredAnswer(prompt=row.pop("prompt"), answer=row.pop("answer"), statistics=AnswerStatistics(**row))
        for row in rows
    ]
