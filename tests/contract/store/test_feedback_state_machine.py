"""The whole way of feedback through ingest, against a model of a few lines: whatever is said, by whom, in whatever
order, however often, in whatever batches, over restarts and rewinds, the store is what the model says.

The model looks at everything that was read at least once, as a set: it knows no order of arrival.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from datetime import datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from services.learner.ingest.feedback_gauges import FeedbackGauges
from services.learner.state.dump import canonical_dump
from services.learner.state.queries.feedback_fate import FeedbackFates
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.domain.feedback import (
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
from services.shared.domain.rollout import Rollout
from services.shared.store.tables import experiences, feedback, feedback_slots, ingest_offsets
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import TENANT, make_feedback, make_rollout
from tests.support.learner_store import Fact, ManualClock, append_fact, ingest_facts, make_ingest
from tests.support.small_log import SmallLog
from tests.support.stores import Stores

JOIN_WINDOW_S, ORPHAN_AFTER_S = 100.0, 1000.0
ROLLOUTS_SPOKEN_OF = ("r1", "r2", "r3")

BODIES: dict[FeedbackKind, st.SearchStrategy[FeedbackBody]] = {
    FeedbackKind.THUMB: st.builds(Thumb, up=st.booleans()),
    FeedbackKind.RATING: st.builds(Rating, stars=st.integers(1, 2)),
    FeedbackKind.COMPARISON: st.builds(Comparison, rejected_rollout_id=st.sampled_from(["other-1", "other-2"])),
    FeedbackKind.EDIT: st.builds(Edit, text=st.sampled_from(["", "better", "best"])),
    FeedbackKind.COMMENT: st.builds(Comment, text=st.sampled_from(["", "hm"])),
}

Slot = tuple[str, str, str]
"""Rater, rollout, kind."""
Statement = tuple[int, bool, str, str]
"""Revision, retracted, digest, id: what decides, in this order."""


def slot_of(said: Feedback) -> Slot:
    return (said.rater_id, said.rollout_id, said.kind.value)


def statements(said: list[Feedback]) -> dict[Slot, list[Statement]]:
    """Of each slot, one for each id: the revision of its first acceptance, the strongest of what it said."""
    found: dict[Slot, list[Statement]] = {}
    for slot, name in {(slot_of(each), each.feedback_id) for each in said}:
        mine = [each for each in said if (slot_of(each), each.feedback_id) == (slot, name)]
        revision = min((each.accept_time, each.meta.event_id, each.revision) for each in mine)[2]
        retracted, digest = max((each.retracted, each.digest) for each in mine)
        found.setdefault(slot, []).append((revision, retracted, digest, name))
    return found


def state_of(one: Statement, all_: list[Statement], accepted: datetime, ended: datetime | None, now: datetime) -> str:
    """Where one statement is."""
    if one != max(all_):
        return FeedbackState.SUPERSEDED
    if one[1]:
        return FeedbackState.RETRACTED
    if ended is None:
        return FeedbackState.ORPHANED if now - accepted > timedelta(seconds=ORPHAN_AFTER_S) else FeedbackState.WAITING
    return FeedbackState.LATE if accepted - ended > timedelta(seconds=JOIN_WINDOW_S) else FeedbackState.JOINED


class FeedbackMachine(RuleBasedStateMachine):
    """People speak, events come again, ingest reads some, is started again, is set back."""

    def __init__(self, stores: Stores, name: str) -> None:
        super().__init__()
        self.stores, self.name = stores, name
        self.clock = ManualClock(seconds=0)
        self.log = SmallLog([ROLLOUTS, FEEDBACK, SCORES])
        self.facts: dict[str, Fact] = {}
        self.numbers = itertools.count()
        self.start()

    def start(self) -> None:
        self.database = self.stores.open(self.name)
        self.ingest = make_ingest(self.log, self.database, self.clock, max_records=3)

    @initialize()
    def begin(self) -> None:
        self.read_to: dict[tuple[str, int], int] = {}

    @rule(
        data=st.data(),
        kind=st.sampled_from(FeedbackKind),
        feedback_id=st.sampled_from("ab"),
        rater=st.sampled_from(["ann", "bob"]),
        rollout=st.sampled_from(ROLLOUTS_SPOKEN_OF),
        seconds=st.sampled_from([0, 1, 2, 300]),
        revision=st.integers(1, 3),
        retracted=st.booleans(),
        with_body=st.booleans(),
    )
    def say(
        self,
        data: st.DataObject,
        kind: FeedbackKind,
        feedback_id: str,
        rater: str,
        rollout: str,
        seconds: int,
        revision: int,
        retracted: bool,
        with_body: bool,
    ) -> None:
        self.append(
            make_feedback(
                f"{kind}-{feedback_id}",
                rollout=rollout,
                kind=kind,
                body=data.draw(BODIES[kind]) if with_body or not retracted else None,
                rater=rater,
                seconds=seconds,
                revision=revision,
                retracted=retracted,
                event=f"said-{next(self.numbers)}",
            )
        )

    @rule(rollout=st.sampled_from(ROLLOUTS_SPOKEN_OF[:2]))
    def answer(self, rollout: str) -> None:
        self.append(make_rollout(rollout))

    @precondition(lambda self: self.facts)
    @rule(seed=st.integers(0, 2**16))
    def send_again(self, seed: int) -> None:
        self.append(random.Random(seed).choice(list(self.facts.values())))

    @rule(turns=st.integers(1, 4))
    def read(self, turns: int) -> None:
        for _ in range(turns):
            self.ingest.step()
        with self.database.read() as connection:
            for row in connection.execute(select(ingest_offsets)):
                key = row.topic, row.partition
                self.read_to[key] = max(row.next, self.read_to.get(key, 0))

    @rule()
    def start_again(self) -> None:
        self.database.close()
        self.start()

    @rule(seed=st.integers(0, 2**16))
    def set_back(self, seed: int) -> None:
        """As an operator does it, with ingest stopped."""
        with self.database.write() as connection:
            rows = connection.execute(select(ingest_offsets)).all()
            if rows:
                row = random.Random(seed).choice(rows)
                where = ingest_offsets.c.topic == row.topic, ingest_offsets.c.partition == row.partition
                connection.execute(update(ingest_offsets).where(*where).values(next=0, last_event_id=""))
        self.start_again()

    @rule(seconds=st.sampled_from([1.0, 5.0, 2000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_store_is_the_model(self) -> None:
        known = self.known()
        said = [fact for fact in known if isinstance(fact, Feedback)]
        ended = {fact.rollout_id: fact.end_time for fact in known if isinstance(fact, Rollout)}
        model = statements(said)
        with self.database.read() as connection:
            rows = connection.execute(select(feedback)).all()
            slots = connection.execute(select(feedback_slots)).all()
            rated = {row.rollout_id: row.rated for row in connection.execute(select(experiences))}
        stored: dict[Slot, list[Statement]] = {}
        for row in rows:
            slot = (row.rater_id, row.rollout_id, row.kind)
            stored.setdefault(slot, []).append((row.revision, row.retracted, row.digest, row.feedback_id))
        assert {slot: sorted(found) for slot, found in stored.items()} == {
            slot: sorted(found) for slot, found in model.items()
        }
        held = {(s.rater_id, s.rollout_id, s.kind): (s.revision, s.retracted, s.digest, s.feedback_id) for s in slots}
        assert held == {slot: max(found) for slot, found in model.items()}
        thumbs = {rollout for (_, rollout, kind), best in held.items() if kind == "thumb" and not best[1]}
        assert {rollout for rollout, is_rated in rated.items() if is_rated} == thumbs
        self.check_states(model, said, ended)

    def check_states(
        self, model: dict[Slot, list[Statement]], said: list[Feedback], ended: dict[str, datetime]
    ) -> None:
        """Each one's fate, and the gauges over all."""
        fates = FeedbackFates(
            self.database, clock=self.clock, join_window_s=JOIN_WINDOW_S, orphan_after_s=ORPHAN_AFTER_S
        )
        states: Counter[str] = Counter()
        for (rater, rollout, kind), found in model.items():
            for one in found:
                accepted = min(
                    item.accept_time
                    for item in said
                    if (slot_of(item), item.feedback_id) == ((rater, rollout, kind), one[3])
                )
                expected = state_of(one, found, accepted, ended.get(rollout), self.clock())
                fate = fates.find(tenant=TENANT, feedback_id=one[3], rater_id=rater, rollout_id=rollout)
                assert (fate.state, fate.revision, fate.kind) == (expected, one[0], kind)
                states[expected] += 1
        metrics = Metrics()
        FeedbackGauges(
            self.database, metrics, clock=self.clock, join_window_s=JOIN_WINDOW_S, orphan_after_s=ORPHAN_AFTER_S
        ).refresh()
        for state in (FeedbackState.WAITING, FeedbackState.JOINED, FeedbackState.LATE, FeedbackState.ORPHANED):
            assert metrics.value("thumbloop_feedback_state", state=state.value) == states[state]
        assert metrics.value("thumbloop_feedback_waiting") == states[FeedbackState.WAITING]

    def append(self, fact: Fact) -> None:
        self.facts[fact.meta.event_id] = fact
        append_fact(self.log, fact)

    def known(self) -> list[Fact]:
        """What ingest has read at least once."""
        by_value = {}
        probe = SmallLog([ROLLOUTS, FEEDBACK, SCORES])
        for fact in self.facts.values():
            append_fact(probe, fact)
            by_value[probe.values(ROLLOUTS if isinstance(fact, Rollout) else FEEDBACK)[-1].value] = fact
            probe = SmallLog([ROLLOUTS, FEEDBACK, SCORES])
        return [
            by_value[record.value]
            for place, part in self.log.partitions.items()
            for record in part.records[: self.read_to.get((place.topic, place.partition), 0)]
        ]

    def teardown(self) -> None:
        """All is read in the end; the dump is that of the same facts in another order."""
        while self.ingest.step():
            pass
        everything = list(self.facts.values())
        random.Random(len(everything)).shuffle(everything)
        again = self.stores.open(f"{self.name}-again")
        for fact in everything:
            ingest_facts(again, self.clock, [fact])
        assert canonical_dump(self.database) == canonical_dump(again)
        self.database.close()
        again.close()


def test_the_store_is_the_model(stores: Stores) -> None:
    names = (f"machine-{number}" for number in itertools.count())
    run_state_machine_as_test(
        lambda: FeedbackMachine(stores, next(names)),  # type: ignore[arg-type]  # it takes any maker of machines
        settings=settings(
            max_examples=25, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
