"""What clients say of answers: all kinds, changes of mind, retractions, repetitions, late words of an older revision.

An *opinion* is a list of statements on one slot in the order in which they are sent. All from seeded dice, times apart.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tests.benchmarks.chaos.statements import Answer, Statement

SILENT = 0.15
"""Share of answers of which nothing is said."""
WORDS = ("Thank you", "Too long", "I would say it shorter", "Boil the water first", "Not what I asked for")


class Opinions:
    """One client's."""

    def __init__(self, dice: random.Random, *, milliseconds: Callable[[], int]) -> None:
        self._dice = dice
        self._milliseconds = milliseconds

    def on(self, answers: Sequence[Answer]) -> list[list[Statement]]:
        """What is said of the choices of one prompt: a list of statements a slot."""
        said: list[list[Statement]] = []
        for answer in answers:
            if self._dice.random() < SILENT:
                continue
            for kind in self._kinds(answer):
                others = [other for other in answers if other.rollout_id != answer.rollout_id]
                if kind != "comparison" or others:
                    said.append(self._slot(answer, kind, others))
        return said

    def _kinds(self, answer: Answer) -> list[str]:
        """A thumb mostly; then, where the token allows it, something else now and then."""
        kinds = ["thumb"] if self._dice.random() < 0.8 else []
        more = [kind for kind in answer.kinds if kind != "thumb"]
        if more and self._dice.random() < 0.5:
            kinds.append(self._dice.choice(more))
        return [kind for kind in kinds if kind in answer.kinds]

    def _slot(self, answer: Answer, kind: str, others: Sequence[Answer]) -> list[Statement]:
        """The first word, then perhaps another, an older one that comes late, or a retraction."""
        first = self._statement(answer, kind, others)
        said = [first]
        mood = self._dice.random()
        if mood < 0.2:
            said.append(self._statement(answer, kind, others))
        elif mood < 0.3 and first.revision is not None:
            older = replace(self._statement(answer, kind, others), revision=first.revision - 1_000)
            said.append(older)
        elif mood < 0.4:
            said.append(self._retraction(first))
        return said

    def _statement(self, answer: Answer, kind: str, others: Sequence[Answer]) -> Statement:
        rejected = self._dice.choice(list(others)) if kind == "comparison" else None
        return Statement(
            feedback_id=self._new_id(),
            rollout_id=answer.rollout_id,
            token=answer.token,
            kind=kind,
            value=self._value(kind),
            revision=self._revision(),
            rejected_rollout_id=rejected.rollout_id if rejected else "",
            rejected_token=rejected.token if rejected else "",
        )

    def _retraction(self, of: Statement) -> Statement:
        return replace(
            of,
            feedback_id=self._new_id(),
            value=None,
            revision=None if of.revision is None else of.revision + 1,
            retracted=True,
            rejected_rollout_id="",
            rejected_token="",
        )

    def _revision(self) -> int | None:
        """Left out in a third of cases: the accept time then."""
        return None if self._dice.random() < 0.33 else self._milliseconds()

    def _value(self, kind: str) -> Any:
        match kind:
            case "thumb":
                return self._dice.choice(("up", "down"))
            case "rating":
                return self._dice.randint(1, 5)
            case "edit" | "comment":
                return self._dice.choice(WORDS)
            case _:
                return None

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
