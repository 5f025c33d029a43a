"""What one who holds a token can do to the store, and what cannot be done to anybody else.

Statements are stored as ingest stores them; the slots say what counts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select

from services.learner.ingest.store_feedback import store_feedback
from services.learner.state.queries.feedback_fate import FeedbackFates
from services.learner.state.queries.totals import read_totals
from services.shared.domain.feedback import (
    BODY_KINDS,
    Comment,
    Comparison,
    Edit,
    Feedback,
    FeedbackBody,
    FeedbackKind,
    FeedbackState,
    Rating,
    Thumb,
)
from services.shared.store.database import Database
from services.shared.store.tables import experiences, feedback, feedback_slots
from tests.support.facts import make_feedback, make_rollout, make_thumb
from tests.support.learner_store import ManualClock, ingest_facts

BODIES: tuple[FeedbackBody, ...] = (
    Thumb(up=True),
    Thumb(up=False),
    Rating(stars=1),
    Rating(stars=5),
    Comparison(rejected_rollout_id="r2"),
    Edit(text="Better."),
    Comment(text="Hm."),
)


def store(database: Database, statements: Sequence[Feedback]) -> None:
    for start in range(0, len(statements), 500):
        with database.write() as connection:
            store_feedback(connection, list(statements[start : start + 500]))


def slots(database: Database, *, rater: str, tenant: str = "default") -> dict[str, tuple[Any, ...]]:
    """What holds, by kind."""
    mine = (feedback_slots.c.rater_id == rater, feedback_slots.c.tenant == tenant)
    with database.read() as connection:
        rows = connection.execute(select(feedback_slots).where(*mine)).all()
    return {row.kind: tuple(row) for row in rows}


def rows_of(database: Database, rater: str) -> list[tuple[Any, ...]]:
    query = select(feedback).where(feedback.c.rater_id == rater).order_by(feedback.c.kind, feedback.c.feedback_id)
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(query)]


def said(number: int, body: FeedbackBody, *, rater: str = "ann", **values: Any) -> Feedback:
    return make_feedback(f"f{number}", body=body, rater=rater, event=f"{rater}-{number}", **values)


def test_one_token_with_ten_thousand_ids_counts_once_a_kind(database: Database, clock: ManualClock) -> None:
    draw = random.Random(4)
    ingest_facts(database, clock, [make_rollout("r1")])
    flood = [said(n, BODIES[n % len(BODIES)], revision=n, retracted=draw.random() < 0.1) for n in range(1, 10_001)]
    last = {kind: max((f for f in flood if f.kind is kind), key=lambda f: f.precedence) for kind in FeedbackKind}
    draw.shuffle(flood)
    store(database, flood)
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(feedback)) == 10_000
        held = connection.execute(select(feedback_slots)).all()
        rated = connection.scalars(select(experiences.c.rated)).all()
    assert {(slot.kind, slot.feedback_id, slot.revision) for slot in held} == {
        (str(kind), item.feedback_id, item.revision) for kind, item in last.items()
    }
    assert len(held) == len(FeedbackKind)
    assert rated == [not last[FeedbackKind.THUMB].retracted]
    totals = read_totals(database)
    assert totals.thumbs_up + totals.thumbs_down == (not last[FeedbackKind.THUMB].retracted)


def test_anothers_ids_with_higher_revisions_change_nothing(database: Database, clock: ManualClock) -> None:
    one_a_kind = {type(body): (number, body) for number, body in enumerate(BODIES)}
    mine = [said(number, body, revision=10) for number, body in one_a_kind.values()]
    ingest_facts(database, clock, [make_rollout("r1")])
    store(database, mine)
    held, rows = slots(database, rater="ann"), rows_of(database, "ann")
    assert len(held) == len(FeedbackKind)
    attacks = [
        said(number, body, rater=rater, revision=revision, retracted=retracted, tenant=tenant, seconds=seconds)
        for rater, tenant in (("eve", "default"), ("eve", "other"), ("ann", "other"))
        for number, body in enumerate(BODIES)
        for revision in (10, 11, 2**62)
        for retracted in (False, True)
        for seconds in (-1000, 1000)
    ]
    random.Random(5).shuffle(attacks)
    store(database, attacks)
    assert slots(database, rater="ann") == held
    assert [row for row in rows_of(database, "ann") if row in rows] == rows
    fates = FeedbackFates(database, clock=clock, join_window_s=10**6, orphan_after_s=10**6)
    for item in mine:
        fate = fates.find(tenant="default", feedback_id=item.feedback_id, rater_id="ann", rollout_id="r1")
        assert (fate.rater_id, fate.kind, fate.revision) == ("ann", item.kind, 10)
        assert fate.state is FeedbackState.JOINED


@pytest.mark.parametrize("body", BODIES[1::2], ids=lambda body: BODY_KINDS[type(body)])
def test_the_same_id_sent_again_later_changes_nothing(
    database: Database, clock: ManualClock, body: FeedbackBody
) -> None:
    """A gateway that restarted gives the repeated statement a new accept time and, with it, a new revision."""
    first = make_feedback("f1", body=body, revision=1_000, seconds=1)
    newer = make_feedback("f2", body=BODIES[0] if isinstance(body, Thumb) else body, revision=2_000, seconds=2)
    store(database, [first, newer])
    held, rows = slots(database, rater=first.rater_id), rows_of(database, first.rater_id)
    store(database, [make_feedback("f1", body=body, revision=9_000, seconds=9, event="again")])
    assert slots(database, rater=first.rater_id) == held
    assert rows_of(database, first.rater_id) == rows


def test_who_asks_is_told_of_its_own_statement_whoever_took_the_id_before(
    database: Database, clock: ManualClock
) -> None:
    store(database, [make_thumb("mine", rater="eve", seconds=0), make_thumb("mine", rater="ann", seconds=5)])
    store(database, [make_thumb("mine", rater="ann", rollout="r2", seconds=9)])
    fates = FeedbackFates(database, clock=clock, join_window_s=10, orphan_after_s=10)

    def asked(**who: str) -> tuple[str, str]:
        fate = fates.find(tenant="default", feedback_id="mine", **who)
        return fate.rater_id, fate.rollout_id

    assert asked() == ("eve", "r1")
    assert asked(rater_id="ann") == ("ann", "r1")
    assert asked(rater_id="ann", rollout_id="r2") == ("ann", "r2")
    assert asked(rater_id="nobody", rollout_id="r2") == ("ann", "r2")
