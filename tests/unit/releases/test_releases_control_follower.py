from __future__ import annotations

import pytest

from services.shared.contracts.controls import control_to_proto, encode_control
from services.shared.contracts.topics import CONTROLS
from services.shared.domain.control import Control, Pause
from services.shared.domain.errors import Unavailable
from services.shared.domain.events import EventMeta
from services.shared.releases.control_follower import ControlFollower
from services.shared.telemetry.metrics import Metrics
from tests.unit.releases.follower_world import EVENT_ID, NOW, Clock, Log


def order(number: int, deployment: str = "test") -> Control:
    meta = EventMeta(event_id=EVENT_ID.format(number), deployment=deployment, tenant="default", event_time=NOW)
    return Control(meta=meta, control_id=f"c-{number}", epoch=1, order=Pause(paused=True, reason="maintenance"))


class Orders:
    """A follower and what it did."""

    def __init__(self) -> None:
        self.log, self.clock = Log(CONTROLS), Clock()
        self.done: list[str] = []
        self.acknowledged: list[str] = []
        self.failing: set[str] = set()
        self.follower = ControlFollower(
            deployment="test",
            open_reader=self.log.open_reader,
            carry_out=self.carry_out,
            acknowledge=self.acknowledged.append,
            metrics=Metrics(),
            poll_s=0.0,
            monotonic=self.clock,
        )

    def carry_out(self, control: Control) -> None:
        if control.control_id in self.failing:
            raise OSError("disk full")
        self.done.append(control.control_id)

    def steps(self, count: int = 8) -> None:
        for _ in range(count):
            self.follower.step()


@pytest.fixture
def orders() -> Orders:
    return Orders()


def test_orders_are_carried_out_in_order_and_acknowledged(orders: Orders) -> None:
    for number in range(5):
        orders.log.append(encode_control(order(number)))
    orders.steps()
    assert orders.done == orders.acknowledged == [f"c-{number}" for number in range(5)]
    assert orders.follower.caught_up


def test_a_failing_order_is_tried_again_before_the_next(orders: Orders) -> None:
    orders.failing = {"c-0"}
    for number in range(2):
        orders.log.append(encode_control(order(number)))
    orders.steps()
    assert orders.done == []
    assert not orders.follower.caught_up
    orders.failing.clear()
    orders.clock.now += 1.0
    orders.steps()
    assert orders.acknowledged == ["c-0", "c-1"]


def test_unknown_foreign_and_broken_orders_are_skipped_unacknowledged(orders: Orders) -> None:
    unknown = control_to_proto(order(1))
    unknown.ClearField("pause")
    orders.log.append(unknown.SerializeToString())
    orders.log.append(b"\xff")
    orders.log.append(encode_control(order(2, deployment="elsewhere")))
    orders.log.append(encode_control(order(3)))
    orders.steps()
    assert orders.acknowledged == ["c-3"]


def test_what_was_done_is_not_done_again_after_trouble_with_the_log(orders: Orders) -> None:
    orders.log.append(encode_control(order(0)))
    orders.steps()
    orders.log.bus.go_away()
    with pytest.raises(Unavailable):
        orders.follower.step()
    orders.log.bus.come_back()
    orders.log.append(encode_control(order(1)))
    orders.steps()
    assert orders.done == ["c-0", "c-1"]
