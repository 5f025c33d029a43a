"""The feedback state machine: whatever arrives, in whatever order and however often, the slots are the model's."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from services.learner.ingest.store_feedback import store_feedback
from services.learner.state.dump import canonical_dump
from services.shared.domain.feedback import Feedback, Thumb
from services.shared.store.database import Database
from services.shared.store.tables import experiences, feedback, feedback_slots
from tests.support.facts import make_feedback, make_thumb
from tests.support.learner_store import ManualClock, ingest_facts
from tests.support.remarks import Slot, Statement, met, remarks, statements
from tests.support.stores import Stores, empty

LIVES = 100
AT_LEAST = {"slots contested": 150, "slots tied": 40, "slots retracted": 100, "ids said twice": 150}
"""What all lives together must have met: about half of what they do meet."""


def held(said: list[Feedback]) -> dict[Slot, Statement]:
    """What holds each slot, by the model."""
    return {slot: max(found) for slot, found in statements(said).items()}


def live(database: Database, draw: random.Random) -> list[Feedback]:
    """People speak, and what they said comes in batches of any size, often again: after each the store is compared."""
    numbers = itertools.count()
    said: list[Feedback] = []
    for _ in range(draw.randint(2, 4)):
        arrived = remarks(draw, numbers)
        said += arrived
        arrived += draw.sample(said, draw.randint(0, min(3, len(said))))
        draw.shuffle(arrived)
        with database.write() as connection:
            store_feedback(connection, arrived)
        compare(database, said)
    return said


def compare(database: Database, said: list[Feedback]) -> None:
    with database.read() as connection:
        slots = {
            (row.rater_id, row.rollout_id, row.kind): (row.revision, row.retracted, row.digest, row.feedback_id)
            for row in connection.execute(select(feedback_slots))
        }
        rated = connection.execute(select(experiences.c.rollout_id, experiences.c.rated)).all()
    assert slots == held(said)
    for rollout_id, is_rated in rated:
        thumbs = [holder for (_, rollout, kind), holder in slots.items() if (rollout, kind) == (rollout_id, "thumb")]
        assert is_rated == any(not retracted for _, retracted, _, _ in thumbs)


def test_the_slots_are_the_models(stores: Stores) -> None:
    database = stores.open()
    seen: Counter[str] = Counter()

    @settings(max_examples=LIVES, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32))
    def lives(seed: int) -> None:
        empty(database)
        seen.update(met(live(database, random.Random(seed))))

    lives()
    assert {what: seen[what] for what, least in AT_LEAST.items() if seen[what] < least} == {}, dict(seen)


def test_every_order_of_one_slots_statements_gives_the_same_rows(stores: Stores, clock: ManualClock) -> None:
    statements = [
        make_thumb("f1", up=True, revision=5, seconds=1),
        make_thumb("f2", up=False, revision=7, seconds=2),
        make_feedback("f2", body=Thumb(up=False), revision=9, seconds=3, event="again"),
        make_feedback("f3", retracted=True, revision=7, seconds=4),
    ]
    dumps = set()
    for number, order in enumerate(itertools.permutations(statements)):
        database = stores.open(f"order-{number}")
        for item in order:
            ingest_facts(database, clock, [item])
        dumps.add("\n".join(canonical_dump(database)))
        database.close()
    assert len(dumps) == 1


def test_ten_thousand_ids_of_one_token_count_once(database: Database, clock: ManualClock) -> None:
    flood = [make_thumb(f"f{number}", up=bool(number % 2), revision=number) for number in range(10_000)]
    for start in range(0, len(flood), 500):
        ingest_facts(database, clock, list(flood[start : start + 500]))
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(feedback)) == 10_000
        slot = connection.execute(select(feedback_slots)).one()
    assert (slot.feedback_id, slot.revision, slot.up) == ("f9999", 9999, True)


@pytest.mark.parametrize("tenant", ["default", "other"])
def test_anothers_feedback_id_changes_nothing(database: Database, clock: ManualClock, tenant: str) -> None:
    ingest_facts(database, clock, [make_thumb("f1", up=True, rater="ann", revision=1)])
    ingest_facts(database, clock, [make_thumb("f1", up=False, rater="eve", revision=99, tenant=tenant)])
    query = select(feedback_slots).where(feedback_slots.c.rater_id == "ann")
    with database.read() as connection:
        slot = connection.execute(query).one()
    assert (slot.up, slot.revision, slot.tenant) == (True, 1, "default")
