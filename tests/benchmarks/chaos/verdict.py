"""The verdict: what clients were told against what the store holds. Pure functions of both.

Each finding is a line for people; how many lines there are is the figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.chaos.blows import Blow
from tests.benchmarks.chaos.lineage import find_lineage_differences, find_trained_twice
from tests.benchmarks.chaos.orphans import explains_orphan
from tests.benchmarks.chaos.statements import Answer, Ledger, Told
from tests.benchmarks.chaos.store_view import FeedbackRow, StoreView

FINAL = frozenset({"joined", "late", "superseded", "retracted", "orphaned", "quarantined", "rejected"})
FINDINGS = ("lost", "counted_twice", "trained_twice", "lineage_differs", "unresolved", "orphans_unexplained")
"""The verdict's lists of what must not be."""


@dataclass(kw_only=True)
class Verdict:
    """What was found. Clean: nothing but explained orphans."""

    lost: list[str] = field(default_factory=list)
    counted_twice: list[str] = field(default_factory=list)
    trained_twice: list[str] = field(default_factory=list)
    lineage_differs: list[str] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    """Each beside the kill that explains it."""
    orphans_unexplained: list[str] = field(default_factory=list)
    orphans_of_whole_answers: int = 0
    """Answers end when their rollout is safe: none of these."""

    @property
    def violations(self) -> list[str]:
        """Every line that must not be there."""
        found: list[str] = []
        for name in FINDINGS:
            found += [f"{name}: {line}" for line in getattr(self, name)]
        return found


def judge(ledger: Ledger, store: StoreView, states: Mapping[str, str], blows: Sequence[Blow]) -> Verdict:
    """`states`: by feedback id, what `GET /v1/feedback/{id}` says in the end."""
    verdict = Verdict(
        lost=find_lost(ledger, store),
        counted_twice=find_counted_twice(ledger, store),
        trained_twice=find_trained_twice(store),
        lineage_differs=find_lineage_differences(store),
    )
    for told in ledger.acknowledged:
        feedback_id, rollout_id = told.statement.feedback_id, told.statement.rollout_id
        state = states.get(feedback_id, "")
        if state not in FINAL:
            verdict.unresolved.append(f"{feedback_id} is {state or 'not known'}")
        elif state == "orphaned":
            _explain(verdict, feedback_id, ledger.answers[rollout_id], blows)
    return verdict


def find_lost(ledger: Ledger, store: StoreView) -> list[str]:
    """Acknowledged statements that are not in the store, or there in other words."""
    rows = _by_id(store.feedback)
    found: list[str] = []
    for told in ledger.acknowledged:
        mine = rows.get(told.statement.feedback_id, [])
        if not mine:
            found.append(f"{told.statement.feedback_id} ({told.acknowledged[0].state}) is not in the store")
        elif difference := _difference(told, mine[0]):
            found.append(f"{told.statement.feedback_id}: {difference}")
    return found


def find_counted_twice(ledger: Ledger, store: StoreView) -> list[str]:
    """Rows that no client's statement explains, ids that count more than once, slots that another holds than wins."""
    found: list[str] = []
    for feedback_id, rows in _by_id(store.feedback).items():
        if feedback_id not in ledger.statements:
            found.append(f"{feedback_id} on {rows[0].rollout_id} was said by no client")
        elif len(rows) > 1:
            found.append(f"{feedback_id} has {len(rows)} rows")
    found += _wrong_slots(store)
    for (version, feedback_id), times in Counter(store.reward_model_uses).items():
        if times > 1:
            found.append(f"{feedback_id} was used {times} times for {version}")
    return found


def _explain(verdict: Verdict, feedback_id: str, answer: Answer, blows: Sequence[Blow]) -> None:
    verdict.orphans_of_whole_answers += answer.complete
    whole = "whole" if answer.complete else "broken off"
    if kill := explains_orphan(answer, blows):
        verdict.orphans.append(
            f"{feedback_id} on {answer.rollout_id} ({whole}, ended {answer.ended_at:.2f}): {kill.target} was killed at"
            f" {kill.at:.2f}"
        )
    else:
        verdict.orphans_unexplained.append(f"{feedback_id} on {answer.rollout_id} ({whole}, {answer.ended_at:.2f})")


def _difference(told: Told, row: FeedbackRow) -> str:
    """What the row says otherwise than the statement; empty: nothing."""
    said = told.statement
    if (row.rollout_id, row.kind) != said.slot:
        return f"it stands in the slot {(row.rollout_id, row.kind)}, and was said of {said.slot}"
    if (row.retracted, row.digest) != (said.retracted, said.digest):
        return "it stands there in other words"
    answered = told.acknowledged[0].revision
    if said.revision is not None and not row.revision == said.revision == answered:
        return f"its revision is {row.revision}, {said.revision} was sent, {answered} answered"
    # A try before the answered one may have arrived, with the revision of its own accept time.
    if row.revision > answered or (row.revision < answered and not told.uncertain):
        return f"its revision is {row.revision}, {answered} was answered"
    return ""


def _wrong_slots(store: StoreView) -> list[str]:
    holders: dict[tuple[str, str], list[FeedbackRow]] = {}
    for holder in store.slots:
        holders.setdefault((holder.rollout_id, holder.kind), []).append(holder)
    said: dict[tuple[str, str], list[FeedbackRow]] = {}
    for row in store.feedback:
        said.setdefault((row.rollout_id, row.kind), []).append(row)
    found = [f"the slot {slot} is held by what nobody said" for slot in holders if slot not in said]
    for slot, rows in said.items():
        held, winner = holders.get(slot, []), max(rows, key=lambda row: row.precedence)
        if len(held) != 1:
            found.append(f"the slot {slot} has {len(held)} holders")
        elif held[0] != winner:
            found.append(f"the slot {slot} is held by {held[0].feedback_id}, and {winner.feedback_id} wins")
    return found


def _by_id(rows: Iterable[FeedbackRow]) -> dict[str, list[FeedbackRow]]:
    found: dict[str, list[FeedbackRow]] = {}
    for row in rows:
        found.setdefault(row.feedback_id, []).append(row)
    return found
