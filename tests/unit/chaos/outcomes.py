"""Outcomes of runs that never were, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.benchmarks.chaos.blows import KILL, Blow
from tests.benchmarks.chaos.run import Outcome
from tests.benchmarks.chaos.statements import Acknowledged, Ledger, Statement, Told
from tests.benchmarks.chaos.store_view import FeedbackRow, StoreView
from tests.benchmarks.chaos.verdict import Verdict


def statement(number: int) -> Statement:
    """A thumb on an answer of its own."""
    return Statement(
        feedback_id=f"f{number}", rollout_id=f"r{number}", token="t", kind="thumb", value="up", revision=10
    )


def kept(said: Statement) -> FeedbackRow:
    """As the store has it."""
    return FeedbackRow(
        rollout_id=said.rollout_id,
        rater_id="rater",
        kind=said.kind,
        feedback_id=said.feedback_id,
        revision=10,
        retracted=False,
        digest=said.digest,
    )


def kills(*victims: str) -> list[Blow]:
    """One each, a second apart."""
    return [Blow(what=KILL, target=victim, at=float(at), until=float(at)) for at, victim in enumerate(victims)]


def outcome(*, acknowledged: int = 10, stored: int = 10, blows: Sequence[Blow] = (), **changes: object) -> Outcome:
    """So many thumbs were acknowledged, and the first so many of them are in the store."""
    said = [statement(number) for number in range(acknowledged)]
    answer = Acknowledged(state="accepted", revision=10, at=1.0)
    rows = [kept(one) for one in said[:stored]]
    whole = Outcome(
        ledger=Ledger(statements={one.feedback_id: Told(statement=one, acknowledged=[answer]) for one in said}),
        store=StoreView(
            feedback=rows,
            slots=rows,
            rollouts=frozenset(),
            policies=[],
            policy_uses=[],
            reward_model_uses=[],
        ),
        states={},
        blows=list(blows),
        verdict=Verdict(),
        exit_codes={"gateway": 0},
        stalled="",
        seconds=1.0,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]  # a test names real fields
