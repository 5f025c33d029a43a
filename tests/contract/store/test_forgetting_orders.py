"""Orders on their way: published by the releaser's turns, in parts where there is much, followed to their end."""

from __future__ import annotations

from uuid import UUID

import pytest

from services.learner.forgetting import orders
from services.learner.forgetting.carrying_out import LEARNER, OrderWork
from services.learner.forgetting.forgetting import Forgetting
from services.learner.forgetting.orders import OrderOutbox
from services.learner.state.acknowledgements import Acknowledgements
from services.shared.bus.interface import Record
from services.shared.contracts.controls import decode_control
from services.shared.contracts.topics import CONTROLS
from services.shared.domain.control import Forget
from services.shared.domain.errors import Busy, Fenced
from services.shared.store.database import Database
from tests.support.facts import DEPLOYMENT, TENANT
from tests.support.forgetting_world import ALICE, ALICE_OLD, HERS, ORDER, alices_facts, forget
from tests.support.learner_store import LearnerStore, ManualClock, ingest_facts
from tests.support.small_log import SmallLog


def outbox(database: Database, log: SmallLog, clock: ManualClock, epoch: int) -> OrderOutbox:
    return OrderOutbox(database, log.publisher("releaser"), deployment=DEPLOYMENT, clock=clock, epoch=epoch)


@pytest.fixture
def log() -> SmallLog:
    return SmallLog([CONTROLS], partitions=1)


def published(log: SmallLog) -> list[Forget]:
    found = [decode_control(record.value).order for record in log.values(CONTROLS)]
    assert all(isinstance(order, Forget) for order in found)
    return [order for order in found if isinstance(order, Forget)]


def test_an_order_is_published_once_kafka_is_there(
    database: Database, learner: LearnerStore, log: SmallLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "ROLLOUTS_A_PART", 1)
    ingest_facts(database, learner.clock, alices_facts())
    forget(learner)
    sending = outbox(database, log, learner.clock, learner.epoch)
    log.refuse_sends = True
    assert sending.step() == 3
    assert sending.step() == 3
    progress = Forgetting(database, clock=learner.clock).progress(ORDER)
    assert (progress.publish_time, progress.acknowledged_by) == (None, ())
    log.refuse_sends = False
    while sending.step():
        pass
    assert [(order.rater_id, order.rollout_ids) for order in published(log)] == [
        (ALICE, HERS[:1]),
        (ALICE_OLD, HERS[1:2]),
        (ALICE, HERS[2:]),
    ]
    controls = [decode_control(record.value) for record in log.values(CONTROLS)]
    assert [control.control_id for control in controls] == [ORDER, f"{ORDER}.1", f"{ORDER}.2"]
    assert UUID(ORDER).version == 7 and {control.meta.tenant for control in controls} == {TENANT}
    assert Forgetting(database, clock=learner.clock).progress(ORDER).publish_time == learner.clock()


def test_a_crash_before_the_mark_sends_the_same_bytes_again(
    database: Database, learner: LearnerStore, log: SmallLog
) -> None:
    forget(learner)
    outbox(database, log, learner.clock, learner.epoch).step()  # sent, not marked
    again = outbox(database, log, learner.clock, learner.epoch)
    while again.step():
        pass
    values: dict[str, set[bytes]] = {}
    records: list[Record] = log.values(CONTROLS)
    for record in records:
        values.setdefault(record.key, set()).add(record.value)
    assert len(records) == 4 and all(len(bodies) == 1 for bodies in values.values())


def test_a_former_leader_marks_nothing(database: Database, learner: LearnerStore, log: SmallLog) -> None:
    forget(learner)
    former = outbox(database, log, learner.clock, learner.epoch)
    former.step()
    LearnerStore(database, learner.clock)
    with pytest.raises(Fenced):
        former.step()


def test_an_order_counts_as_carried_out_when_all_its_parts_are(database: Database, learner: LearnerStore) -> None:
    forget(learner)
    said = Acknowledgements(database, clock=learner.clock)
    forgetting = Forgetting(database, clock=learner.clock)
    said.control(replica_id="gateway-0", control_id=ORDER)
    assert forgetting.progress(ORDER).acknowledged_by == ()
    said.control(replica_id="gateway-0", control_id=f"{ORDER}.1")
    assert forgetting.progress(ORDER).acknowledged_by == ("gateway-0",)


class Eraser:
    """Fails so many times, then counts."""

    def __init__(self, failures: int) -> None:
        self.failures, self.done = failures, 0

    def erase(self, *, rater_ids: list[str], rollout_ids: tuple[str, ...]) -> int:
        if self.failures:
            self.failures -= 1
            raise Busy("Kafka is busy")
        self.done += 1
        return 0


def test_the_learner_acknowledges_when_memory_and_dead_letters_are_clean(
    database: Database, learner: LearnerStore
) -> None:
    forget(learner)
    held, eraser = [True], Eraser(failures=1)
    work = OrderWork(
        database,
        Acknowledgements(database, clock=learner.clock),
        consumer=LEARNER,
        abandon=lambda rollout_ids: held[0],
        eraser=eraser,  # type: ignore[arg-type]  # erases alike
    )
    order = Forget(rater_id=ALICE, rollout_ids=HERS)
    forgetting = Forgetting(database, clock=learner.clock)
    with pytest.raises(Busy):
        work.forget(ORDER, order)  # the trainer still holds a batch
    held[0] = False
    with pytest.raises(Busy):
        work.forget(ORDER, order)  # the dead letters cannot be reached
    work.forget(ORDER, order)
    assert forgetting.progress(ORDER).acknowledged_by == ()  # there is another part
    work.forget(f"{ORDER}.1", order)
    assert forgetting.progress(ORDER).acknowledged_by == (LEARNER,)
    work.forget(ORDER, order)  # read again after a start
    assert eraser.done == 2
