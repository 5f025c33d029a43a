"""The whole way of feedback through ingest, against a model of a few lines: whatever is said, by whom, in whatever
order, however often, in whatever batches, over restarts and rewinds, the store is what the model says.

The model (`tests.support.remarks`) looks at everything that was read at least once, as a set: it knows no order of
arrival. Each life is drawn from one number: where hypothesis draws every act, most lives are nothing but restarts. What
they met is counted, and must be enough.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from services.learner.ingest.feedback_gauges import FeedbackGauges
from services.learner.state.dump import canonical_dump
from services.learner.state.queries.feedback_fate import FeedbackFates
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.domain.feedback import Feedback, FeedbackState
from services.shared.domain.rollout import Rollout
from services.shared.store.database import Database
from services.shared.store.tables import experiences, feedback, feedback_slots, ingest_offsets
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import TENANT, make_rollout
from tests.support.learner_store import Fact, ManualClock, append_fact, ingest_facts, make_ingest
from tests.support.remarks import Slot, Statement, met, remarks, slot_of, statements
from tests.support.small_log import SmallLog
from tests.support.stores import Stores, empty

JOIN_WINDOW_S, ORPHAN_AFTER_S = 100.0, 1000.0
LIVES, ACTS = 100, 6
AT_LEAST = {
    "slots contested": 100,
    "slots tied": 30,
    "slots retracted": 70,
    "ids said twice": 100,
    "restarts": 50,
    "partitions set back": 15,
    "late rollouts": 12,
    "waiting": 30,
    "joined": 12,
    "late": 6,
    "orphaned": 6,
    "superseded": 50,
    "retracted": 50,
}
"""What all lives together must have met: about half of what they do meet. A state: lives that had a statement in it."""


def state_of(one: Statement, all_: list[Statement], accepted: datetime, ended: datetime | None, now: datetime) -> str:
    """Where one statement is."""
    if one != max(all_):
        return FeedbackState.SUPERSEDED
    if one[1]:
        return FeedbackState.RETRACTED
    if ended is None:
        return FeedbackState.ORPHANED if now - accepted > timedelta(seconds=ORPHAN_AFTER_S) else FeedbackState.WAITING
    return FeedbackState.LATE if accepted - ended > timedelta(seconds=JOIN_WINDOW_S) else FeedbackState.JOINED


class Life:
    """People speak, events come again, ingest reads some, is started again, is set back. The store is compared whenever
    it, or the time, may have changed.
    """

    def __init__(self, database: Database, again: Database, draw: random.Random, seen: Counter[str]) -> None:
        """Both stores are emptied; all lives share them."""
        self.database, self.again, self.draw, self.seen = database, again, draw, seen
        self.clock = ManualClock(seconds=0)
        self.log = SmallLog([ROLLOUTS, FEEDBACK, SCORES])
        self.facts: dict[str, Fact] = {}
        self.by_value: dict[bytes, Fact] = {}
        self.numbers = itertools.count()
        self.read_to: dict[tuple[str, int], int] = {}
        self.states: set[str] = set()
        empty(database)
        empty(again)
        self.start()

    def start(self) -> None:
        self.database.close()  # its connections: the next statement opens others
        self.ingest = make_ingest(self.log, self.database, self.clock, max_records=3)

    def live(self) -> None:
        acts = [self.say, self.answer, self.send_again, self.read, self.start_again, self.set_back, self.time_passes]
        self.say()
        for act in self.draw.choices(acts, weights=[3, 3, 1, 3, 1, 1, 1], k=ACTS):
            act()
        self.end()

    def say(self) -> None:
        for each in remarks(self.draw, self.numbers):
            self.append(each)

    def answer(self) -> None:
        rollout = self.draw.choice(["r1", "r1", "r2"])
        new = not any(isinstance(fact, Rollout) and fact.rollout_id == rollout for fact in self.facts.values())
        spoken_of = {fact.rollout_id for fact in self.known() if isinstance(fact, Feedback)}
        self.seen["late rollouts"] += new and rollout in spoken_of
        self.append(make_rollout(rollout))

    def send_again(self) -> None:
        self.append(self.draw.choice(list(self.facts.values())))

    def read(self) -> None:
        for _ in range(self.draw.randint(1, 4)):
            self.step()
        self.compare()

    def step(self) -> int:
        count = self.ingest.step()
        with self.database.read() as connection:
            for row in connection.execute(select(ingest_offsets)):
                key = row.topic, row.partition
                self.read_to[key] = max(row.next, self.read_to.get(key, 0))
        return count

    def start_again(self) -> None:
        self.seen["restarts"] += 1
        self.start()
        self.read()

    def set_back(self) -> None:
        """As an operator does it, with ingest stopped."""
        with self.database.write() as connection:
            rows = connection.execute(select(ingest_offsets).where(ingest_offsets.c.next > 0)).all()
            if rows:
                row = self.draw.choice(sorted(rows))
                where = ingest_offsets.c.topic == row.topic, ingest_offsets.c.partition == row.partition
                connection.execute(update(ingest_offsets).where(*where).values(next=0, last_event_id=""))
                self.seen["partitions set back"] += 1
        self.start_again()

    def time_passes(self) -> None:
        self.clock.advance(self.draw.choice([1.0, 5.0, 2000.0, 2000.0]))
        self.compare()

    def end(self) -> None:
        """All is read; the dump is that of the same facts in another order."""
        while self.step():
            pass
        self.compare()
        everything = list(self.facts.values())
        assert len(self.known()) >= len(everything)
        self.draw.shuffle(everything)
        for start in range(0, len(everything), 3):
            ingest_facts(self.again, self.clock, everything[start : start + 3])
        assert canonical_dump(self.database) == canonical_dump(self.again)
        self.seen.update(met(fact for fact in everything if isinstance(fact, Feedback)))
        self.seen.update(self.states)

    def compare(self) -> None:
        """The store is the model."""
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
        self.states |= set(states)
        metrics = Metrics()
        FeedbackGauges(
            self.database, metrics, clock=self.clock, join_window_s=JOIN_WINDOW_S, orphan_after_s=ORPHAN_AFTER_S
        ).refresh()
        for state in (FeedbackState.WAITING, FeedbackState.JOINED, FeedbackState.LATE, FeedbackState.ORPHANED):
            assert metrics.value("thumbloop_feedback_state", state=state.value) == states[state]
        assert metrics.value("thumbloop_feedback_waiting") == states[FeedbackState.WAITING]

    def append(self, fact: Fact) -> None:
        self.facts[fact.meta.event_id] = fact
        self.by_value[append_fact(self.log, fact).value] = fact

    def known(self) -> list[Fact]:
        """What ingest has read at least once."""
        return [
            self.by_value[record.value]
            for place, part in self.log.partitions.items()
            for record in part.records[: self.read_to.get((place.topic, place.partition), 0)]
        ]


@pytest.mark.timeout(900)
def test_the_store_is_the_model(stores: Stores) -> None:
    database, again = stores.open("life"), stores.open("again")
    seen: Counter[str] = Counter()

    @settings(max_examples=LIVES, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32))
    def live(seed: int) -> None:
        Life(database, again, random.Random(seed), seen).live()

    live()
    assert {what: seen[what] for what, least in AT_LEAST.items() if seen[what] < least} == {}, dict(seen)
