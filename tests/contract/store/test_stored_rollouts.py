"""How far rollouts have come, asked by id, as a generator asks before it lets go of its own copies."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from services.learner.state.queries.stored_rollouts import MOST_ROLLOUTS, stored_rollouts
from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import RolloutProgress
from services.shared.store.database import Database
from services.shared.store.tables import tombstones
from tests.support.facts import make_rollout, make_score, make_thumb
from tests.support.learner_store import Fact, LearnerStore, ingest_facts

MISSING, UNSCORED, SETTLED = RolloutProgress.MISSING, RolloutProgress.UNSCORED, RolloutProgress.SETTLED


def ask(database: Database, *rollout_ids: str, tenant: str = "default") -> list[RolloutProgress]:
    return stored_rollouts(database, tenant=tenant, rollout_ids=rollout_ids)


def test_settled_is_what_has_come_and_has_a_score(learner: LearnerStore) -> None:
    whole, unscored, only_scored = make_rollout("whole"), make_rollout("unscored"), make_rollout("only-scored")
    facts: list[Fact] = [whole, make_score(whole), unscored, make_score(only_scored)]
    ingest_facts(learner.database, learner.clock, [*facts, make_thumb("f1", rollout="only-rated")])
    assert ask(learner.database, "whole", "unscored", "only-scored", "only-rated", "never-seen", "whole") == [
        SETTLED,
        UNSCORED,
        MISSING,
        MISSING,
        MISSING,
        SETTLED,
    ]
    assert ask(learner.database, "whole", tenant="another") == [MISSING]


def test_anothers_score_settles_nothing(learner: LearnerStore) -> None:
    ingest_facts(
        learner.database, learner.clock, [make_rollout("r1"), make_score(make_rollout("r1", tenant="another"))]
    )
    assert ask(learner.database, "r1") == [UNSCORED]
    assert ask(learner.database, "r1", tenant="another") == [MISSING]


def test_an_answer_without_a_token_is_settled_by_its_score(learner: LearnerStore) -> None:
    """It never trains anything, and is never sent again for that."""
    empty = make_rollout("empty", versions=[])
    assert make_score(empty).reference_log_probs == ()
    ingest_facts(learner.database, learner.clock, [empty])
    assert ask(learner.database, "empty") == [UNSCORED]
    ingest_facts(learner.database, learner.clock, [make_score(empty)])
    assert ask(learner.database, "empty") == [SETTLED]


def test_what_was_forgotten_need_not_be_sent_again(learner: LearnerStore) -> None:
    with learner.database.write() as connection:
        connection.execute(
            insert(tombstones).values(
                tenant="default",
                subject="rollout",
                subject_id="r1",
                control_id="c1",
                forget_time=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
    assert ask(learner.database, "r1", "r2") == [SETTLED, MISSING]
    assert ask(learner.database, "r1", tenant="another") == [MISSING]


def test_a_thousand_at_a_time_and_no_more(learner: LearnerStore) -> None:
    asked = [f"r{number}" for number in range(MOST_ROLLOUTS)]
    assert ask(learner.database, *asked) == [MISSING] * MOST_ROLLOUTS
    for wrong in ([], [*asked, "one more"]):
        with pytest.raises(InvalidInput, match="1 to 1000"):
            ask(learner.database, *wrong)
