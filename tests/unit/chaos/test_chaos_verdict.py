"""The verdict sees each violation, and none where there is none: fabricated journals against fabricated stores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.chaos.blows import KILL, Blow
from tests.benchmarks.chaos.links import ANSWERS_COME_BY, KAFKA
from tests.benchmarks.chaos.statements import Acknowledged, Answer, Ledger, Statement, Told
from tests.benchmarks.chaos.store_view import FeedbackRow, Policy, StoreView
from tests.benchmarks.chaos.verdict import Verdict, judge

ANSWER = Answer(
    rollout_id="r1", prompt_id="p1", token="t1", kinds=("thumb",), complete=True, asked_at=100.0, ended_at=101.0
)
FIRST = Statement(feedback_id="f1", rollout_id="r1", token="t1", kind="thumb", value="up", revision=10)
SECOND = replace(FIRST, feedback_id="f2", value="down", revision=20)


def row_of(statement: Statement, **changes: object) -> FeedbackRow:
    """As the store keeps a statement that arrived."""
    row = FeedbackRow(
        rollout_id=statement.rollout_id,
        rater_id="rater",
        kind=statement.kind,
        feedback_id=statement.feedback_id,
        revision=statement.revision or 0,
        retracted=statement.retracted,
        digest=statement.digest,
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # a test names real fields


def told(statement: Statement, *, revision: int | None = None, uncertain: int = 0) -> Told:
    """Acknowledged once."""
    answered = Acknowledged(state="accepted", revision=revision or statement.revision or 0, at=102.0)
    return Told(statement=statement, acknowledged=[answered], uncertain=uncertain)


def ledger_of(*all_told: Told) -> Ledger:
    return Ledger(answers={"r1": ANSWER}, statements={one.statement.feedback_id: one for one in all_told})


def store_of(rows: list[FeedbackRow], slots: list[FeedbackRow], **changes: object) -> StoreView:
    view = StoreView(
        feedback=rows, slots=slots, rollouts=frozenset({"r1"}), policies=[], policy_uses=[], reward_model_uses=[]
    )
    return replace(view, **changes)  # type: ignore[arg-type]  # a test names real fields


BOTH = ledger_of(told(FIRST), told(SECOND))
GOOD = store_of([row_of(FIRST), row_of(SECOND)], [row_of(SECOND)])
STATES = {"f1": "superseded", "f2": "joined"}


def verdict(
    ledger: Ledger = BOTH,
    store: StoreView = GOOD,
    states: dict[str, str] | None = None,
    blows: tuple[Blow, ...] = (),
) -> Verdict:
    return judge(ledger, store, STATES if states is None else states, blows)


def kill(target: str, at: float) -> Blow:
    return Blow(what=KILL, target=target, at=at, until=at)


def test_a_store_that_kept_everything_is_clean() -> None:
    assert verdict().violations == []


def test_an_acknowledged_statement_that_is_not_in_the_store_is_lost() -> None:
    found = verdict(store=store_of([row_of(SECOND)], [row_of(SECOND)]))
    assert [line.split()[0] for line in found.lost] == ["f1"]


@pytest.mark.parametrize(
    "row",
    [
        row_of(FIRST, digest=SECOND.digest),
        row_of(FIRST, retracted=True),
        row_of(FIRST, revision=11),
        row_of(FIRST, rollout_id="r2"),
        row_of(FIRST, kind="rating"),
    ],
)
def test_a_statement_in_other_words_is_lost(row: FeedbackRow) -> None:
    found = verdict(ledger_of(told(FIRST)), store_of([row], [row]), {"f1": "joined"})
    assert len(found.lost) == 1


def test_an_unknown_statement_may_be_there_or_not() -> None:
    unknown = Told(statement=SECOND, uncertain=1)
    ledger = ledger_of(told(FIRST), unknown)
    assert verdict(ledger, store_of([row_of(FIRST)], [row_of(FIRST)]), {"f1": "joined"}).violations == []
    assert verdict(ledger, GOOD, {"f1": "superseded"}).violations == []


def test_a_revision_that_was_left_out_is_the_answered_one() -> None:
    left_out = replace(FIRST, revision=None)
    rows = [row_of(FIRST)]
    states = {"f1": "joined"}
    assert verdict(ledger_of(told(left_out, revision=10)), store_of(rows, rows), states).violations == []
    assert verdict(ledger_of(told(left_out, revision=12)), store_of(rows, rows), states).lost
    earlier_try = ledger_of(told(left_out, revision=12, uncertain=1))
    assert verdict(earlier_try, store_of(rows, rows), states).violations == []
    later = ledger_of(told(left_out, revision=9, uncertain=1))
    assert verdict(later, store_of(rows, rows), states).lost


def test_a_row_that_no_client_said_counts_twice() -> None:
    copy = row_of(SECOND, feedback_id="f2+copy", revision=5)
    assert len(verdict(store=store_of([*GOOD.feedback, copy], GOOD.slots)).counted_twice) == 1


def test_one_id_in_two_slots_counts_twice() -> None:
    elsewhere = row_of(SECOND, rater_id="another")
    assert verdict(store=store_of([*GOOD.feedback, elsewhere], GOOD.slots)).counted_twice


def test_a_slot_with_two_holders_counts_twice() -> None:
    assert verdict(store=store_of(GOOD.feedback, [row_of(FIRST), row_of(SECOND)])).counted_twice


def test_a_slot_without_a_holder_is_seen() -> None:
    assert verdict(store=store_of(GOOD.feedback, [])).counted_twice


def test_a_slot_that_nobody_spoke_of_is_seen() -> None:
    assert verdict(store=store_of(GOOD.feedback, [*GOOD.slots, row_of(FIRST, kind="rating")])).counted_twice


def test_a_slot_held_by_an_older_revision_is_seen() -> None:
    assert verdict(store=store_of(GOOD.feedback, [row_of(FIRST)])).counted_twice


def test_a_retraction_wins_over_a_statement_of_its_revision() -> None:
    taken_back = replace(FIRST, feedback_id="f3", value=None, retracted=True)
    ledger = ledger_of(told(FIRST), told(taken_back))
    rows = [row_of(FIRST), row_of(taken_back)]
    states = {"f1": "superseded", "f3": "retracted"}
    assert verdict(ledger, store_of(rows, [row_of(taken_back)]), states).violations == []
    assert verdict(ledger, store_of(rows, [row_of(FIRST)]), states).counted_twice


def test_feedback_used_twice_for_one_reward_model_is_seen() -> None:
    uses = [("rm1", "f2"), ("rm1", "f2"), ("rm2", "f2")]
    assert len(verdict(store=replace(GOOD, reward_model_uses=uses)).counted_twice) == 1


def policy(version: str, parent: str, *batch: str, published: bool = True) -> Policy:
    return Policy(version=version, parent_version=parent, published=published, batch=batch, manifest=batch)


def trained(*policies: Policy) -> StoreView:
    uses = [(one.version, rollout_id) for one in policies for rollout_id in sorted(set(one.batch))]
    return replace(GOOD, policies=list(policies), policy_uses=uses)


def test_an_experience_in_two_releases_of_one_line_was_trained_twice() -> None:
    line = trained(policy("p0", ""), policy("p1", "p0", "a", "b"), policy("p2", "p1", "b", "c"))
    assert len(verdict(store=line).trained_twice) == 1


def test_an_experience_twice_in_one_batch_was_trained_twice() -> None:
    assert len(verdict(store=trained(policy("p0", ""), policy("p1", "p0", "a", "a"))).trained_twice) == 1


def test_branches_and_refused_candidates_may_share_experiences() -> None:
    branches = trained(
        policy("p0", ""),
        policy("p1", "p0", "a"),
        policy("p2", "p0", "a"),
        policy("p3", "p2", "a", published=False),
    )
    assert verdict(store=branches).trained_twice == []


LINE = trained(policy("p0", ""), policy("p1", "p0", "a", "b"), policy("p2", "p1", "c"))
P0, P1, P2 = LINE.policies


def test_a_line_of_which_all_say_the_same_is_clean() -> None:
    assert verdict(store=LINE).violations == []


@pytest.mark.parametrize(
    "store",
    [
        pytest.param(replace(LINE, policies=[P0, P1, replace(P2, batch=("c", "a"))]), id="the candidate"),
        pytest.param(replace(LINE, policies=[P0, P1, replace(P2, manifest=("c", "a"))]), id="the manifest"),
        pytest.param(replace(LINE, policy_uses=[*LINE.policy_uses, ("p2", "a")]), id="uses"),
    ],
)
def test_whoever_says_that_it_was_trained_again_is_heard_and_contradicted(store: StoreView) -> None:
    found = verdict(store=store)
    assert (len(found.trained_twice), bool(found.lineage_differs)) == (1, True)


@pytest.mark.parametrize(
    "store",
    [
        pytest.param(replace(LINE, policy_uses=LINE.policy_uses[1:]), id="a use is missing"),
        pytest.param(replace(LINE, policies=[P0, replace(P1, batch=("a",)), P2]), id="the candidate knows less"),
        pytest.param(replace(LINE, policies=[P0, replace(P1, manifest=("a",)), P2]), id="the manifest knows less"),
        pytest.param(replace(LINE, policies=[P0, replace(P1, manifest=None), P2]), id="no manifest"),
    ],
)
def test_tellings_of_one_policy_that_differ_are_a_violation(store: StoreView) -> None:
    found = verdict(store=store)
    assert found.lineage_differs
    assert found.trained_twice == []
    assert found.violations


def test_a_manifest_that_names_one_twice_was_trained_twice() -> None:
    assert verdict(store=replace(LINE, policies=[P0, P1, replace(P2, manifest=("c", "c"))])).trained_twice


@pytest.mark.parametrize("state", ["", "accepted", "spooled", "waiting"])
def test_a_state_that_is_not_final_is_unresolved(state: str) -> None:
    assert len(verdict(states={"f1": "superseded", "f2": state}).unresolved) == 1


ORPHANED = {"f1": "superseded", "f2": "orphaned"}
BROKEN_OFF = replace(BOTH, answers={"r1": replace(ANSWER, complete=False)})


def test_an_orphan_stands_beside_the_kill_that_explains_it() -> None:
    blows = (kill("generator", 101.5), kill("learner", 101.0))
    found = verdict(BROKEN_OFF, states=ORPHANED, blows=blows)
    assert found.violations == []
    assert "generator was killed at 101.50" in found.orphans[0]


@pytest.mark.parametrize("blows", [(), (kill("learner", 101.0),), (kill("generator", 99.0),), (kill("broker", 101.5),)])
def test_an_orphan_without_such_a_kill_is_unexplained(blows: tuple[Blow, ...]) -> None:
    assert len(verdict(BROKEN_OFF, states=ORPHANED, blows=blows).orphans_unexplained) == 1


def test_a_kill_after_the_rollout_must_be_safe_explains_nothing() -> None:
    """The answer ended at 101; the generator had two seconds for Kafka, then its disk."""
    near, late = kill("generator", 103.9), kill("generator", 104.1)
    assert verdict(BROKEN_OFF, states=ORPHANED, blows=(near,)).orphans_unexplained == []
    assert len(verdict(BROKEN_OFF, states=ORPHANED, blows=(late,)).orphans_unexplained) == 1


def test_behind_a_cut_link_the_generator_learns_later_that_nobody_listens() -> None:
    cut = Blow(what="cut", target=ANSWERS_COME_BY, at=100.5, until=102.0)
    elsewhere, healed_before = replace(cut, target=KAFKA), replace(cut, until=100.9)
    late = kill("generator", 104.9)
    assert verdict(BROKEN_OFF, states=ORPHANED, blows=(cut, late)).orphans_unexplained == []
    for other in (elsewhere, healed_before):
        assert len(verdict(BROKEN_OFF, states=ORPHANED, blows=(other, late)).orphans_unexplained) == 1
    later = kill("generator", 105.1)
    assert len(verdict(BROKEN_OFF, states=ORPHANED, blows=(cut, later)).orphans_unexplained) == 1


def test_no_kill_explains_the_orphan_of_a_whole_answer() -> None:
    """Its rollout was safe before its stream ended."""
    found = verdict(states=ORPHANED, blows=(kill("generator", 101.5), kill("broker", 101.5)))
    assert (len(found.orphans_unexplained), found.orphans_of_whole_answers) == (1, 1)
