"""Which statements the store has, asked by name, as a gateway asks before it lets go of its own copies."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from services.learner.state.queries.stored_feedback import (
    MOST_REFERENCES,
    FeedbackReference,
    stored_feedback,
    stored_rows,
)
from services.shared.domain.errors import InvalidInput
from services.shared.domain.feedback import FeedbackKind, Rating
from services.shared.store.database import Database
from services.shared.store.tables import tombstones
from tests.support.facts import make_feedback, make_thumb
from tests.support.learner_store import LearnerStore, ingest_facts


def reference(
    name: str, *, rollout: str = "r1", rater: str = "rater-1", kind: FeedbackKind = FeedbackKind.THUMB
) -> FeedbackReference:
    return FeedbackReference(rollout_id=rollout, rater_id=rater, kind=kind, feedback_id=name)


def ask(database: Database, *references: FeedbackReference, tenant: str = "default") -> list[bool]:
    return stored_feedback(database, tenant=tenant, references=references)


def test_only_the_whole_name_is_an_answer(learner: LearnerStore) -> None:
    ingest_facts(learner.database, learner.clock, [make_thumb("f1"), make_feedback("f2", body=Rating(stars=3))])
    assert ask(
        learner.database,
        reference("f1"),
        reference("f1", rollout="r2"),
        reference("f1", rater="rater-2"),
        reference("f1", kind=FeedbackKind.RATING),
        reference("f2"),
        reference("f2", kind=FeedbackKind.RATING),
        reference("f1"),
    ) == [True, False, False, False, False, True, True]
    assert ask(learner.database, reference("f1"), tenant="another") == [False]


def test_superseded_ones_are_stored_too(learner: LearnerStore) -> None:
    ingest_facts(
        learner.database, learner.clock, [make_thumb("f1", revision=1), make_thumb("f2", revision=2, up=False)]
    )
    assert ask(learner.database, reference("f1"), reference("f2")) == [True, True]


@pytest.mark.parametrize(("subject", "subject_id"), [("rater", "rater-1"), ("rollout", "r1")])
def test_what_was_forgotten_need_not_be_sent_again(learner: LearnerStore, subject: str, subject_id: str) -> None:
    with learner.database.write() as connection:
        connection.execute(
            insert(tombstones).values(
                tenant="default",
                subject=subject,
                subject_id=subject_id,
                control_id="c1",
                forget_time=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
    other = reference("f1", rollout="r2", rater="rater-2")
    assert ask(learner.database, reference("f1"), other) == [True, False]
    assert ask(learner.database, reference("f1"), tenant="another") == [False]


def test_a_thousand_at_a_time_and_no_more(learner: LearnerStore) -> None:
    thumbs = [make_thumb(f"f{number}", rollout=f"r{number}") for number in range(0, MOST_REFERENCES, 2)]
    ingest_facts(learner.database, learner.clock, thumbs)
    asked = [reference(f"f{number}", rollout=f"r{number}") for number in range(MOST_REFERENCES)]
    assert ask(learner.database, *asked) == [number % 2 == 0 for number in range(MOST_REFERENCES)]
    for wrong in ([], [*asked, reference("one more")]):
        with pytest.raises(InvalidInput, match="1 to 1000"):
            ask(learner.database, *wrong)


def test_it_is_found_by_its_rollout_not_by_reading_all(database: Database) -> None:
    """SQLite alone: PostgreSQL's planner reads a table this small as a whole."""
    if database.is_postgresql:
        return
    query = stored_rows("default", [("r1", "rater-1", "thumb", f"f{number}") for number in range(3)])
    with database.read() as connection:
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        plan = " ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
    assert "tenant=? AND rollout_id=?" in plan, plan
