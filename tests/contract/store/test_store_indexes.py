"""What ingest, claims and forgetting ask goes down an index, so that it costs the same at ten million rows as at ten
thousand.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from services.learner.forgetting.forgetting import Forgetting
from services.learner.forgetting.orders import OrderOutbox
from services.learner.ports import Verdict
from services.learner.state.features_retention import FeaturesRetention
from services.learner.state.queries.feedback_fate import FeedbackFates
from services.learner.state.queries.release_lives import read_lives
from services.learner.state.queries.releases import ReleaseViews
from services.learner.state.queries.stored_feedback import FeedbackReference, stored_feedback
from services.learner.state.queries.stored_rollouts import stored_rollouts
from services.learner.state.rollouts_retention import RolloutsRetention
from services.shared.contracts.topics import CONTROLS
from services.shared.domain.feedback import Comparison, FeedbackKind
from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import RolloutProgress
from services.shared.ids import least_id
from services.shared.store.database import Database
from tests.support.facts import (
    DEPLOYMENT,
    TENANT,
    at,
    make_feedback,
    make_rollout,
    make_score,
    make_thumb,
    policy_version,
    reward_version,
)
from tests.support.forgetting_world import ORDER
from tests.support.learner_store import Fact, LearnerStore, ManualClock, ingest_facts
from tests.support.small_log import SmallLog

GROWING = (
    "rollouts",
    "rollout_versions",
    "experiences",
    "scores",
    "features",
    "feedback",
    "feedback_slots",
    "uses",
    "controls",
)


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
            scans = [step for step in steps if step.split()[1] in GROWING and _is_pass(step)]
            if "feedback_slots.rollout_id IN" in statement:  # a search among all thumbs is a scan by another name
                scans += [step for step in steps if "feedback_slots" in step and "rollout_id" not in step]
            if "LIMIT" not in statement:
                scans += [step for step in steps if _is_all_thumbs(step)]
        else:
            asking.execute("SET LOCAL enable_seqscan = off")
            asking.execute("SET LOCAL enable_bitmapscan = off")
            steps = [step for (step,) in asking.execute(f"EXPLAIN {statement}", values)]
            scans = [step for step in steps if _scanned(step) in GROWING]
        if scans:
            self.scans[statement] = scans


def _is_pass(step: str) -> bool:
    """Over a table, or over all that a tenant has in it (SQLite keeps no count of how much that is). The index of the
    few orders that wait may be passed over.
    """
    return "ix_controls_unpublished" not in step and (step.startswith("SCAN") or step.endswith("(tenant=?)"))


def _is_all_thumbs(step: str) -> bool:
    """A search that nothing but kind and emptiness lead gives every thumb there is."""
    return "feedback_slots" in step and step.endswith("(kind=? AND retracted=?)")


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
    assert stored_rollouts(database, tenant="default", rollout_ids=["r3", "r4"]) == [RolloutProgress.SETTLED] * 2
    clock.advance(10_000)
    ingest_facts(database, clock, [make_score(make_rollout("newest"), seconds=10_000)])
    keeper = FeaturesRetention(database, clock=clock, epoch=learner.epoch, keep_s=100.0, rated_examples=5)
    assert [keeper.step() for _ in range(2)] == [20, 15]
    assert plans.scans == {}


def test_retention_of_rollouts_scans_no_table_that_grows(database: Database, clock: ManualClock) -> None:
    learner = LearnerStore(database, clock)
    learner.commits.commit_first(learner.candidate(0))
    names = [f"{least_id(at(number))}-7000-8000-000000000000" for number in range(20)]
    facts: list[Fact] = []
    for number, name in enumerate(names):
        rollout = make_rollout(name, seconds=number)
        facts += [rollout, make_score(rollout), make_thumb(f"f{number}", rollout=name, seconds=number + 2)]
    ingest_facts(database, clock, facts)
    learner.experiences.claim(limit=5, policy_version=policy_version(0), reward_model_version=reward_version(0))
    candidate = learner.candidate(1, rollouts=tuple(names[15:]))
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, Verdict(passed=True, lines=()))
    clock.advance(10_000)
    ingest_facts(database, clock, [make_rollout(f"{least_id(at(5000))}-7000-8000-000000000000", seconds=5000)])
    plans = Plans(database)
    keeper = RolloutsRetention(database, clock=clock, epoch=learner.epoch, keep_s=100.0, rated_examples=5, page=10)
    assert [keeper.step() for _ in range(4)] == [10, 5, 0, 0]
    assert plans.scans == {}


def test_forgetting_scans_no_table_that_grows(database: Database, clock: ManualClock) -> None:
    """A person among others, with late rollouts; and the releaser's look for orders that wait."""
    learner = LearnerStore(database, clock)
    others = [make_rollout(f"o{number:03}", rater=f"rater-{number}") for number in range(200)]
    compared = [
        make_feedback(f"c{number}", rollout=rollout.rollout_id, body=Comparison(rejected_rollout_id=f"x{number}"))
        for number, rollout in enumerate(others)
    ]
    hers = [make_rollout(f"r{number}", rater="alice") for number in range(10)]
    said = [make_thumb(f"f{number}", rollout=f"r{number}", rater="alice") for number in range(10)]
    ingest_facts(database, clock, [*others, *compared, *hers[:5], *said])
    if database.is_postgresql:
        with database.write() as connection:
            connection.exec_driver_sql("ANALYZE")
    plans = Plans(database)
    forgetting = Forgetting(database, clock=clock)
    forgetting.forget(tenant=TENANT, rater_ids=["alice"], control_id=ORDER)
    ingest_facts(database, clock, hers[5:])
    log = SmallLog([CONTROLS], partitions=1)
    sending = OrderOutbox(database, log.publisher("releaser"), deployment=DEPLOYMENT, clock=clock, epoch=learner.epoch)
    while sending.step():
        pass
    assert forgetting.progress(ORDER).publish_time is not None
    assert plans.scans == {}


def test_a_page_of_releases_scans_no_table_that_grows(database: Database, clock: ManualClock) -> None:
    """The lives of all versions are counted apart, and kept for as long as their cost asks."""
    learner = LearnerStore(database, clock)
    learner.commits.commit_first(learner.candidate(0))
    rollouts = [make_rollout(f"r{number}") for number in range(20)]
    ingest_facts(database, clock, [*rollouts, *(make_thumb(f"f{n}", rollout=f"r{n}") for n in range(20))])
    lives = read_lives(database)
    views = ReleaseViews(database, lives=lambda: lives)
    plans = Plans(database)
    page = views.page(kind=None, page_size=50, page_token="")
    assert [view.metrics["thumbs"] for view in page.releases] == [20.0]
    assert views.one(policy_version(0))[0].metrics["answers"] == 20.0
    assert plans.scans == {}


def test_a_candidate_after_somebody_was_forgotten_scans_no_table_that_grows(
    database: Database, clock: ManualClock
) -> None:
    """It learned from others alone; one of them chose a feedback id that the forgotten one had chosen too."""
    learner = LearnerStore(database, clock)
    learner.commits.commit_first(learner.candidate(0))
    others = [make_rollout(f"o{number:03}", rater=f"rater-{number}") for number in range(200)]
    said = [make_thumb(f"f{number}", rollout=one.rollout_id, rater=one.rater_id) for number, one in enumerate(others)]
    hers: list[Fact] = [make_rollout("r0", rater="alice"), make_thumb("f7", rollout="r0", rater="alice")]
    ingest_facts(database, clock, [*others, *said, *hers])
    Forgetting(database, clock=clock).forget(tenant=TENANT, rater_ids=["alice"], control_id=ORDER)
    if database.is_postgresql:
        with database.write() as connection:
            connection.exec_driver_sql("ANALYZE")
    plans = Plans(database)
    kind = ReleaseKind.REWARD_MODEL
    learner.candidates.submit(learner.candidate(1, kind=kind, rollouts=("o001", "o002"), feedback=("f1", "f2")))
    learner.candidates.submit(learner.candidate(2, kind=kind, rollouts=("o007", "o008"), feedback=("f7", "f8")))
    assert plans.scans == {}


def test_late_rollouts_of_a_batch_are_looked_up_together(database: Database, clock: ManualClock) -> None:
    """Their number does not change how often the statements are looked at."""
    LearnerStore(database, clock)
    Forgetting(database, clock=clock).forget(tenant=TENANT, rater_ids=["alice"], control_id=ORDER)
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "comparison" in statement:
            asked.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    ingest_facts(database, clock, [make_rollout(f"r{number}", rater="alice") for number in range(5)])
    assert len(asked) == 1
