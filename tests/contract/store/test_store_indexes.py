"""What ingest and claims ask goes down an index, so that it costs the same at ten million rows as at ten thousand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from services.learner.ports import Verdict
from services.learner.state.queries.feedback_fate import FeedbackFates
from services.learner.state.queries.stored_feedback import FeedbackReference, stored_feedback
from services.learner.state.retention import Retention
from services.shared.domain.feedback import FeedbackKind
from services.shared.store.database import Database
from tests.support.facts import make_rollout, make_score, make_thumb, policy_version, reward_version
from tests.support.learner_store import Fact, LearnerStore, ManualClock, ingest_facts

GROWING = ("rollouts", "rollout_versions", "experiences", "scores", "features", "feedback", "feedback_slots", "uses")


class Plans:
    """Asks for the plan of every statement as it is run, and notes those that pass over a whole table.

    PostgreSQL reads a small table as a whole by choice; told not to, it does so only where no index serves.
    """

    def __init__(self, database: Database) -> None:
        self.scans: dict[str, list[str]] = {}
        event.listen(database.engine, "before_cursor_execute", self._ask)

    def _ask(self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
            return
        asking, values = connection.connection.cursor(), parameters[0] if many else parameters
        if connection.dialect.name == "sqlite":
            steps = [step for *_, step in asking.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            scans = [step for step in steps if step.startswith("SCAN") and step.split()[1] in GROWING]
            if "feedback_slots.rollout_id IN" in statement:  # a search among all thumbs is a scan by another name
                scans += [step for step in steps if "feedback_slots" in step and "rollout_id" not in step]
        else:
            asking.execute("SET LOCAL enable_seqscan = off")
            asking.execute("SET LOCAL enable_bitmapscan = off")
            steps = [step for (step,) in asking.execute(f"EXPLAIN {statement}", values)]
            scans = [step for step in steps if _scanned(step) in GROWING]
        if scans:
            self.scans[statement] = scans


def _scanned(step: str) -> str:
    """The table of a line "Seq Scan on TABLE  (cost=...)"; "" of another."""
    return step.partition("Seq Scan on ")[2].partition(" ")[0]


def test_ingest_claims_and_commits_scan_no_table_that_grows(database: Database, clock: ManualClock) -> None:
    learner = LearnerStore(database, clock)
    learner.commits.commit_first(learner.candidate(0))
    plans = Plans(database)
    facts: list[Fact] = []
    for number in range(20):
        rollout = make_rollout(f"r{number}", seconds=number)
        facts += [
            rollout,
            make_score(rollout),
            make_thumb(f"f{number}", rollout=rollout.rollout_id, seconds=number + 2),
        ]
    ingest_facts(database, clock, facts)
    learner.experiences.claim(limit=5, policy_version=policy_version(0), reward_model_version=reward_version(0))
    names = tuple(f"r{number}" for number in range(15, 20))
    candidate = learner.candidate(1, rollouts=names, feedback=("f19",))
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, Verdict(passed=True, lines=()))
    learner.experiences.rated_examples(limit=10)
    learner.experiences.ready_count(policy_version=policy_version(1))
    fates = FeedbackFates(database, clock=clock, join_window_s=1, orphan_after_s=1)
    fates.find(tenant="default", feedback_id="f3")
    reference = FeedbackReference("r3", "rater-1", FeedbackKind.THUMB, "f3")
    assert stored_feedback(database, tenant="default", references=[reference, reference]) == [True, True]
    clock.advance(10_000)
    keeper = Retention(database, clock=clock, epoch=learner.epoch, keep_s=100.0, rated_examples=5)
    assert [keeper.step() for _ in range(2)] == [20, 15]
    assert plans.scans == {}
