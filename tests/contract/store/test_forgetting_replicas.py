"""Whom an order waits for: replicas that were heard lately, by any process of the learner, before or after a start."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from services.learner.forgetting.forgetting import Forgetting
from services.learner.forgetting.orders import part_id
from services.learner.forgetting.replicas import Replicas
from services.learner.state.acknowledgements import Acknowledgements, ReleaseAcknowledgement
from services.learner.trainer.post import NAME as POST
from services.shared.domain.release import ReleaseKind
from services.shared.store.database import Database
from services.shared.store.leases import Leases
from services.shared.store.tables import replicas as table
from tests.support.facts import policy_version
from tests.support.forgetting_world import ORDER, forget
from tests.support.learner_store import LearnerStore, ManualClock
from tests.support.patience import eventually

MINUTE, DAY = 60.0, 86_400.0

Start = Callable[..., Replicas]


@pytest.fixture
def start(database: Database, clock: ManualClock) -> Iterator[Start]:
    """A process of the learner begins to listen."""
    started: list[Replicas] = []

    def begin(interval_s: float = 5.0) -> Replicas:
        begun = Replicas(database, clock=clock, interval_s=interval_s)
        begun.start()
        started.append(begun)
        return begun

    yield begin
    for each in started:
        each.stop()


def hear(database: Database, listening: Replicas, clock: ManualClock, *names: str) -> None:
    """Each asks for something, and that is written down."""
    for name in names:
        listening.note(name)

    def written() -> bool:
        with database.read() as connection:
            heard = {row.replica_id: row.seen_time for row in connection.execute(select(table))}
        return all(heard.get(name) == clock() for name in names)

    eventually(written, what="the replicas are noted")


def test_who_was_heard_within_a_minute_lives(database: Database, clock: ManualClock, start: Start) -> None:
    listening, elsewhere = start(), start()
    clock.advance(DAY)
    hear(database, listening, clock, "gateway-0", "gateway-1")
    listening.note("")
    clock.advance(MINUTE - 1)
    hear(database, elsewhere, clock, "gateway-0")
    assert listening.living() == elsewhere.living() == {"gateway-0", "gateway-1"}
    clock.advance(1)
    assert listening.living() == elsewhere.living() == {"gateway-0"}


def test_slow_askers_are_given_three_of_their_intervals(database: Database, clock: ManualClock, start: Start) -> None:
    listening = start(interval_s=MINUTE)
    clock.advance(DAY)
    hear(database, listening, clock, "gateway-0")
    clock.advance(3 * MINUTE - 1)
    assert listening.living() == {"gateway-0"}
    clock.advance(1)
    assert listening.living() == frozenset()


def test_a_young_learner_does_not_take_for_gone_whom_it_could_not_hear(
    database: Database, clock: ManualClock, start: Start
) -> None:
    hear(database, start(), clock, "gateway-0")
    clock.advance(DAY / 2)
    young = start()
    hear(database, young, clock, "gateway-1")
    assert young.living() == {"gateway-0", "gateway-1"}
    clock.advance(DAY / 2)
    assert start().living() == {"gateway-1"}
    hear(database, young, clock, "gateway-2")
    with database.read() as connection:
        assert set(connection.scalars(select(table.c.replica_id))) == {"gateway-0", "gateway-1", "gateway-2"}
    clock.advance(1)
    hear(database, start(), clock, "gateway-1")
    with database.read() as connection:
        assert set(connection.scalars(select(table.c.replica_id))) == {"gateway-1", "gateway-2"}


def test_asking_often_is_written_down_seldom(database: Database, clock: ManualClock, start: Start) -> None:
    listening = start()
    hear(database, listening, clock, "gateway-0")
    first = clock()
    clock.advance(14)
    listening.note("gateway-0")
    hear(database, listening, clock, "gateway-1")
    with database.read() as connection:
        assert connection.scalar(select(table.c.seen_time).where(table.c.replica_id == "gateway-0")) == first
    clock.advance(1)
    hear(database, listening, clock, "gateway-0")


def test_a_trainer_with_a_process_of_its_own_is_waited_for(
    database: Database, learner: LearnerStore, clock: ManualClock, start: Start
) -> None:
    listening = start()
    Leases(database, clock=clock, holder="learner-0", ttl_s=10).take(POST)  # the leader's own
    assert listening.living() == frozenset()
    clock.advance(11)
    learner.leases.renew("learner", learner.epoch)
    Leases(database, clock=clock, holder="trainer-0", ttl_s=10).take(POST)
    assert listening.living() == {"trainer-0"}
    clock.advance(11)
    assert listening.living() == frozenset()


def test_an_order_waits_for_the_learner_and_all_that_live(
    database: Database, learner: LearnerStore, clock: ManualClock, start: Start
) -> None:
    """The second gateway, which serves no release, is waited for; a generator that was taken down is not."""
    listening = start()
    clock.advance(MINUTE)
    hear(database, listening, clock, "generator-9")
    clock.advance(MINUTE)
    hear(database, listening, clock, "gateway-0", "gateway-1")
    forget(learner)
    forgetting = Forgetting(database, clock=clock, living=listening.living)
    said = Acknowledgements(database, clock=clock)
    assert forgetting.progress(ORDER).waiting_for == ("gateway-0", "gateway-1", "learner")
    for name in ("gateway-0", "learner"):
        for number in range(2):
            said.control(replica_id=name, control_id=part_id(ORDER, number))
    said.control(replica_id="gateway-1", control_id=ORDER)
    assert forgetting.progress(ORDER).waiting_for == ("gateway-1",)
    said.control(replica_id="gateway-1", control_id=part_id(ORDER, 1))
    progress = forgetting.progress(ORDER)
    assert (progress.acknowledged_by, progress.waiting_for) == (("gateway-0", "gateway-1", "learner"), ())


def test_what_a_replica_served_goes_when_it_is_gone(
    database: Database, learner: LearnerStore, clock: ManualClock, start: Start
) -> None:
    """Pods may get a new name with every start. What is still there stays, however long ago it was said."""
    learner.commits.commit_first(learner.candidate(0))
    book = Acknowledgements(database, clock=clock)
    for name in ("generator-0", "generator-gone"):
        book.release(
            ReleaseAcknowledgement(
                replica_id=name, kind=ReleaseKind.POLICY, epoch=1, sequence=1, version=policy_version(0)
            )
        )
    listening = start()
    hear(database, listening, clock, "generator-0", "generator-gone")
    clock.advance(DAY - MINUTE)
    hear(database, listening, clock, "generator-0")
    assert learner.candidates.acknowledged_by(policy_version(0)) == {"generator-0", "generator-gone"}
    clock.advance(2 * MINUTE)
    hear(database, listening, clock, "generator-0")
    assert learner.candidates.acknowledged_by(policy_version(0)) == {"generator-0"}
