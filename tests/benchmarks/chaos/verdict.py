"""The verdict: what clients were told against what the store holds. Pure functions of both.

Each finding is a line for people; how many lines there are is the figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.chaos.blows import KILL, Blow
from tests.benchmarks.chaos.statements import Answer, Ledger, Told
from tests.benchmarks.chaos.store_view import FeedbackRow, Policy, StoreView

FINAL = frozenset({"joined", "late", "superseded", "retracted", "orphaned", "quarantined", "rejected"})
EXPLAINS_ORPHANS = "generator"
"""Whose death may take along the rollout of an answer that broke off; a whole one ends when its rollout is safe."""
NEAR_S = 10.0
"""A kill explains an orphan when it fell between the question and so long after the answer's end."""


@dataclass(kw_only=True)
class Verdict:
    """What was found. Clean: nothing but explained orphans."""

    lost: list[str] = field(default_factory=list)
    counted_twice: list[str] = field(default_factory=list)
    trained_twice: list[str] = field(default_factory=list)
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
        for name in ("lost", "counted_twice", "trained_twice", "unresolved", "orphans_unexplained"):
            found += [f"{name}: {line}" for line in getattr(self, name)]
        return found


def judge(ledger: Ledger, store: StoreView, states: Mapping[str, str], blows: Sequence[Blow]) -> Verdict:
    """`states`: by feedback id, what `GET /v1/feedback/{id}` says in the end."""
    verdict = Verdict(
        lost=find_lost(ledger, store),
        counted_twice=find_counted_twice(ledger, store),
        trained_twice=find_trained_twice(store),
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


def find_trained_twice(store: StoreView) -> list[str]:
    """Experiences that stand more than once in the line of a published policy, or twice in one batch."""
    policies = {policy.version: policy for policy in store.policies}
    used: dict[str, list[str]] = {}
    for version, rollout_id in store.policy_uses:
        used.setdefault(version, []).append(rollout_id)
    found: dict[str, str] = {}
    for policy in published_line(store.policies):
        doubles = [rollout_id for rollout_id, times in Counter(policy.batch).items() if times > 1]
        found |= {rollout_id: f"{rollout_id} twice in the batch of {policy.version}" for rollout_id in doubles}
        seen: dict[str, str] = {}
        for version in _ancestry(policy.version, policies):
            for rollout_id in used.get(version, ()):
                if rollout_id in seen:
                    found[rollout_id] = f"{rollout_id} in {seen[rollout_id]} and in {version}"
                seen[rollout_id] = version
    return sorted(found.values())


def published_line(policies: Iterable[Policy]) -> list[Policy]:
    """Policies that were announced."""
    return [policy for policy in policies if policy.published]


def experiences_trained(store: StoreView) -> int:
    """Distinct rollouts in batches of published policies."""
    published = {policy.version for policy in published_line(store.policies)}
    return len({rollout_id for version, rollout_id in store.policy_uses if version in published})


def explains_orphan(answer: Answer, blows: Iterable[Blow]) -> Blow | None:
    """The kill that may have taken along the answer's rollout. None: it must not be lost."""
    if answer.complete:
        return None
    kills = [blow for blow in blows if blow.what == KILL and blow.target == EXPLAINS_ORPHANS]
    near = [kill for kill in kills if answer.asked_at <= kill.at <= answer.ended_at + NEAR_S]
    return min(near, key=lambda one: abs(one.at - answer.ended_at), default=None)


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


def _ancestry(version: str, policies: Mapping[str, Policy]) -> list[str]:
    line: list[str] = []
    while version in policies and version not in line:
        line.append(version)
        version = policies[version].parent_version
    return line


def _by_id(rows: Iterable[FeedbackRow]) -> dict[str, list[FeedbackRow]]:
    found: dict[str, list[FeedbackRow]] = {}
    for row in rows:
        found.setdefault(row.feedback_id, []).append(row)
    return found
