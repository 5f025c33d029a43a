"""Several ingest processes on one store: fair shares, handed over at batch boundaries, each record's effects once."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import select, update

from services.learner.ingest.ingest import Ingest
from services.learner.state.dump import canonical_dump
from services.shared.bus.interface import Place
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, SCORES
from services.shared.domain.errors import Corrupt, Fenced
from services.shared.store.database import Database
from services.shared.store.tables import ingest_offsets, leases
from tests.support.facts import make_rollout, make_score, make_thumb
from tests.support.learner_store import Fact, ManualClock, append_fact, ingest_facts, make_ingest
from tests.support.small_log import SmallLog
from tests.support.stores import Stores

ROUND_S = 10 / 3 + 0.1
"""A little more than a third of the lease of `make_ingest`."""


@pytest.fixture
def log() -> SmallLog:
    return SmallLog([ROLLOUTS, FEEDBACK, SCORES], partitions=4)


def held(ingest: Ingest) -> list[Place]:
    return sorted(ingest.assignment.held)


def by_topic(ingest: Ingest) -> dict[str, int]:
    return {topic: sum(place.topic == topic for place in held(ingest)) for topic in (ROLLOUTS, FEEDBACK, SCORES)}


def rounds(clock: ManualClock, *ingests: Ingest, times: int = 2) -> None:
    for _ in range(times):
        clock.advance(ROUND_S)
        for ingest in ingests:
            ingest.step()


def facts(count: int) -> list[Fact]:
    found: list[Fact] = []
    for number in range(count):
        rollout = make_rollout(f"r{number}", seconds=number)
        found += [make_thumb(f"f{number}", rollout=f"r{number}"), rollout, make_score(rollout)]
    return found


def test_a_newcomer_gets_its_fair_share_of_each_topic(log: SmallLog, database: Database, clock: ManualClock) -> None:
    one, two, three = (make_ingest(log, database, clock, holder=name) for name in ("one", "two", "three"))
    one.step()
    assert by_topic(one) == {ROLLOUTS: 4, FEEDBACK: 4, SCORES: 4}
    rounds(clock, one, two)
    rounds(clock, one, two)
    assert by_topic(one) == by_topic(two) == {ROLLOUTS: 2, FEEDBACK: 2, SCORES: 2}
    rounds(clock, one, two, three, times=4)
    assert sorted(len(held(each)) for each in (one, two, three)) == [4, 4, 4]
    assert sorted(held(one) + held(two) + held(three)) == sorted(log.partitions)


def test_more_processes_than_partitions_leave_some_in_reserve(
    log: SmallLog, database: Database, clock: ManualClock
) -> None:
    many = [make_ingest(log, database, clock, holder=f"i{number:02}") for number in range(14)]
    rounds(clock, *many, times=6)
    assert sorted(len(held(each)) for each in many) == [0, 0, *[1] * 12]


def test_one_that_drains_gives_its_partitions_back_at_once(
    log: SmallLog, database: Database, clock: ManualClock
) -> None:
    one, two = make_ingest(log, database, clock, holder="one"), make_ingest(log, database, clock, holder="two")
    rounds(clock, one, two, times=3)
    assert len(held(two)) == 6
    one.assignment.give_back()
    rounds(clock, two, times=1)
    assert len(held(two)) == 12
    with database.read() as connection:
        assert set(connection.scalars(select(ingest_offsets.c.holder))) == {"two"}


def test_one_that_dies_is_replaced_after_its_leases(log: SmallLog, database: Database, clock: ManualClock) -> None:
    one, two = make_ingest(log, database, clock, holder="one"), make_ingest(log, database, clock, holder="two")
    rounds(clock, one, two, times=3)
    rounds(clock, two, times=1)
    assert len(held(two)) == 6
    rounds(clock, two, times=3)  # 10 s without a word of `one`
    assert len(held(two)) == 12


def test_it_comes_back_under_its_own_name_at_once(log: SmallLog, database: Database, clock: ManualClock) -> None:
    one, two = make_ingest(log, database, clock, holder="one"), make_ingest(log, database, clock, holder="two")
    rounds(clock, one, two, times=3)
    again = make_ingest(log, database, clock, holder="one")
    again.step()
    assert held(again) == held(one)
    clock.advance(ROUND_S)
    with pytest.raises(Fenced, match="another process has taken over the name 'one'"):
        one.step()


def test_what_a_name_held_before_beyond_its_share_is_given_back(
    log: SmallLog, database: Database, clock: ManualClock
) -> None:
    make_ingest(log, database, clock, holder="one").step()  # killed, holding all
    two = make_ingest(log, database, clock, holder="two")
    two.step()
    again = make_ingest(log, database, clock, holder="one")
    again.step()
    assert len(held(again)) == 6
    rounds(clock, two, times=1)
    assert len(held(two)) == 6


def test_names_long_gone_are_forgotten(log: SmallLog, database: Database, clock: ManualClock) -> None:
    make_ingest(log, database, clock, holder="gone").step()
    clock.advance(4000)
    two = make_ingest(log, database, clock, holder="two")
    two.step()
    two.assignment.give_back()
    with database.read() as connection:
        assert list(connection.scalars(select(leases.c.name))) == ["ingest/two"]


def test_two_never_both_commit(log: SmallLog, database: Database, clock: ManualClock) -> None:
    """One sleeps over the end of its lease, and wakes with a batch in its hands."""
    for fact in facts(3):
        append_fact(log, fact)
    one, two = make_ingest(log, database, clock, holder="one"), make_ingest(log, database, clock, holder="two")
    one.assignment.go_round(one._open())
    batch = one._open().poll(0.2)
    clock.advance(11)
    while two.step():
        pass
    before = canonical_dump(database)
    with pytest.raises(Fenced):
        one.writer.write(batch, one.assignment.held)
    assert canonical_dump(database) == before


@pytest.mark.parametrize("seed", range(4))
def test_any_number_of_processes_that_come_and_go_give_the_same_store(
    log: SmallLog, stores: Stores, clock: ManualClock, seed: int
) -> None:
    """Processes join, drain, die, are fenced and rewound while the log grows; the dump is that of one reader."""
    chance = random.Random(seed)
    database, by_hand = stores.open(), stores.open("by-hand")
    running: dict[str, Ingest] = {}
    everything = facts(24)
    sent: list[Fact] = []
    while len(sent) < len(everything) or not running:
        for fact in everything[len(sent) : len(sent) + chance.randint(0, 6)]:
            append_fact(log, fact)
            sent.append(fact)
        name = f"i{chance.randint(0, 3)}"
        match chance.randint(0, 5):
            case 0 | 1 | 2:
                running.setdefault(name, make_ingest(log, database, clock, holder=name, max_records=5))
            case 3:
                running.pop(name, None)  # killed
            case 4 if name in running:
                running.pop(name).assignment.give_back()
            case 5:
                rewind(database, chance)
        for each in chance.sample(sorted(running), len(running)):
            turn(running[each])
        clock.advance(chance.choice([0.1, 1.0, ROUND_S]))
    last = make_ingest(log, database, clock, holder="last")
    clock.advance(30)
    while last.step():
        pass
    ingest_facts(by_hand, clock, everything)
    assert canonical_dump(database) == canonical_dump(by_hand)


def turn(ingest: Ingest) -> None:
    """As the thread does it."""
    try:
        ingest.step()
    except Fenced:
        ingest.forget()


def rewind(database: Database, chance: random.Random) -> None:
    """An operator sets a partition back to its start."""
    with database.write() as connection:
        rows = connection.execute(select(ingest_offsets)).all()
        if rows:
            row = chance.choice(rows)
            where = ingest_offsets.c.topic == row.topic, ingest_offsets.c.partition == row.partition
            connection.execute(update(ingest_offsets).where(*where).values(next=0, last_event_id=""))


def remake_feedback(log: SmallLog, *, grown_to: int) -> None:
    """Deleted and made again; it has more events than before."""
    log.remake(FEEDBACK)
    for number in range(grown_to):
        thumb = make_thumb(f"new{number}", rollout=f"r{number % 4}")
        log.append(FEEDBACK, thumb.rollout_id, encode_feedback(thumb))


def ingest_of_four_chats(log: SmallLog, database: Database, clock: ManualClock) -> Ingest:
    """Under way: it has read all that there is."""
    for fact in facts(4):
        append_fact(log, fact)
    ingest = make_ingest(log, database, clock)
    while ingest.step():
        pass
    return ingest


class TestTheLogIsLookedAtAgain:
    """While it is read: a reconnection shows as another incarnation of its partitions."""

    def test_a_topic_made_again_under_a_running_ingest_stops_it(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        ingest = ingest_of_four_chats(log, database, clock)
        remake_feedback(log, grown_to=40)
        clock.advance(ROUND_S)
        with pytest.raises(Corrupt, match=r"feedback\[\d\]: the topic was made again: its id is .* `ingest_offsets`"):
            ingest.step()

    def test_a_broker_without_topic_ids_is_asked_for_the_last_event(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        log.has_topic_ids = False
        ingest = ingest_of_four_chats(log, database, clock)
        remake_feedback(log, grown_to=40)
        clock.advance(ROUND_S)
        with pytest.raises(Corrupt, match=r"feedback\[\d\]: offset \d holds event .* `ingest_offsets`"):
            ingest.step()

    def test_a_topic_made_again_and_read_on_before_anybody_looks_stops_it_all_the_same(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        ingest = ingest_of_four_chats(log, database, clock)
        remake_feedback(log, grown_to=40)
        assert ingest.step() > 0, "between two rounds nothing shows"
        clock.advance(ROUND_S)
        for _ in range(2):
            with pytest.raises(Corrupt, match=r"feedback\[\d\]: the topic was made again"):
                ingest.step()
            clock.advance(10 * ROUND_S)
            ingest = make_ingest(log, database, clock, holder="after-a-restart")

    def test_a_topic_made_again_with_fewer_partitions_stops_it(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        thumb = make_thumb("f1", rollout="r1")
        log.append(FEEDBACK, "r1", encode_feedback(thumb), partition=3)
        ingest = make_ingest(log, database, clock)
        while ingest.step():
            pass
        del log.partitions[Place(FEEDBACK, 3)]
        clock.advance(ROUND_S)
        with pytest.raises(Corrupt, match=r"feedback\[3\]: the partition is gone, and had been read up to 1"):
            ingest.step()

    def test_another_leader_of_the_same_log_is_no_fault(
        self, log: SmallLog, database: Database, clock: ManualClock
    ) -> None:
        for fact in facts(2):
            append_fact(log, fact)
        ingest = make_ingest(log, database, clock)
        while ingest.step():
            pass
        log.elections += 1
        append_fact(log, make_thumb("later", rollout="r1"))
        clock.advance(ROUND_S)
        assert ingest.step() == 1
