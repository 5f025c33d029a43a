"""The feedback state machine: whatever arrives, in whatever order and however often, the slots are the model's."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import func, select

from services.learner.ingest.store_feedback import store_feedback
from services.learner.state.dump import canonical_dump
from services.shared.domain.feedback import Feedback, FeedbackBody, Rating, Thumb
from services.shared.store.database import Database
from services.shared.store.tables import experiences, feedback, feedback_slots
from tests.support.facts import make_feedback, make_thumb
from tests.support.learner_store import ManualClock, ingest_facts
from tests.support.stores import Stores

bodies: st.SearchStrategy[FeedbackBody] = st.one_of(
    st.builds(Thumb, up=st.booleans()), st.builds(Rating, stars=st.integers(1, 5))
)


def expected_slots(sent: list[Feedback]) -> dict[tuple[str, str, str], tuple[str, bool, str]]:
    """The rules of `services.learner.state.statements`, said plainly and over everything that was ever sent."""
    slots: dict[tuple[str, str, str], tuple[str, bool, str]] = {}
    keys = {(item.rater_id, item.rollout_id, item.kind.value) for item in sent}
    for key in keys:
        mine = [item for item in sent if (item.rater_id, item.rollout_id, item.kind.value) == key]
        best: tuple[int, bool, str, str] | None = None
        for feedback_id in {item.feedback_id for item in mine}:
            said = [item for item in mine if item.feedback_id == feedback_id]
            revision = min(said, key=lambda item: (item.accept_time, item.meta.event_id)).revision
            retracted, digest = max((item.retracted, item.digest) for item in said)
            candidate = (revision, retracted, digest, feedback_id)
            best = candidate if best is None else max(best, candidate)
        assert best is not None
        slots[key] = (best[3], best[1], best[2])
    return slots


class FeedbackMachine(RuleBasedStateMachine):
    """Sends, sends again, restarts; the store equals the model after each step."""

    def __init__(self, stores: Stores, name: str) -> None:
        super().__init__()
        self.stores, self.name = stores, name
        self.database = stores.open(name)
        self.sent: list[Feedback] = []
        self.numbers = itertools.count()

    @rule(
        feedback_id=st.sampled_from("abc"),
        rater=st.sampled_from(["ann", "bob"]),
        rollout=st.sampled_from(["r1", "r2"]),
        body=bodies,
        seconds=st.integers(0, 5),
        revision=st.integers(1, 3),
        retracted=st.booleans(),
    )
    def send(
        self,
        feedback_id: str,
        rater: str,
        rollout: str,
        body: FeedbackBody,
        seconds: int,
        revision: int,
        retracted: bool,
    ) -> None:
        item = make_feedback(
            feedback_id,
            rollout=rollout,
            body=body,
            rater=rater,
            seconds=seconds,
            revision=revision,
            retracted=retracted,
            event=f"event-{next(self.numbers)}",
        )
        self.sent.append(item)
        self.store([item])

    @rule(seed=st.integers(0, 1000))
    def deliver_again(self, seed: int) -> None:
        again = list(self.sent)
        random.Random(seed).shuffle(again)
        self.store(again[:5])

    @rule()
    def restart(self) -> None:
        self.database.close()
        self.database = self.stores.open(self.name)

    @invariant()
    def slots_are_the_models(self) -> None:
        with self.database.read() as connection:
            slots = {
                (row.rater_id, row.rollout_id, row.kind): (row.feedback_id, row.retracted, row.digest)
                for row in connection.execute(select(feedback_slots))
            }
            rated = {
                row.rollout_id: row.rated
                for row in connection.execute(select(experiences.c.rollout_id, experiences.c.rated))
            }
        assert slots == expected_slots(self.sent)
        for rollout_id, is_rated in rated.items():
            holding = [s for (_, r, kind), s in slots.items() if r == rollout_id and kind == "thumb" and not s[1]]
            assert is_rated == bool(holding)

    def store(self, items: list[Feedback]) -> None:
        with self.database.write() as connection:
            store_feedback(connection, items)

    def teardown(self) -> None:
        self.database.close()


def test_the_slots_are_the_models(stores: Stores) -> None:
    names = (f"machine-{number}" for number in itertools.count())
    run_state_machine_as_test(
        lambda: FeedbackMachine(stores, next(names)),  # type: ignore[arg-type]  # it takes any maker of machines
        settings=settings(
            max_examples=20, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


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
