from __future__ import annotations

import pytest

from services.generator.admission import Admission, Ticket
from services.shared.domain.errors import Busy
from services.shared.domain.rollout import Purpose


def ran(ticket: Ticket) -> bool:
    return ticket.granted.done() and ticket.granted.result()


async def test_slots_are_given_in_order_and_come_back() -> None:
    admission = Admission(max_running=2, max_waiting=10, kv_tokens=1000)
    tickets = [admission.ask(Purpose.USER, 10) for _ in range(4)]
    assert [ran(ticket) for ticket in tickets] == [True, True, False, False]
    admission.release(tickets[1], 1.0)
    assert [ran(ticket) for ticket in tickets[2:]] == [True, False]
    assert (admission.running, admission.waiting) == (2, 1)


async def test_tokens_are_never_overbooked() -> None:
    admission = Admission(max_running=8, max_waiting=10, kv_tokens=100)
    big, small, blocked = (admission.ask(Purpose.USER, tokens) for tokens in (60, 30, 20))
    assert (ran(big), ran(small), ran(blocked)) == (True, True, False)
    admission.release(small, 1.0)
    assert ran(blocked)


async def test_a_full_queue_says_when_to_come_again() -> None:
    admission = Admission(max_running=1, max_waiting=1, kv_tokens=100)
    admission.ask(Purpose.USER, 1)
    waiting = admission.ask(Purpose.USER, 1)
    with pytest.raises(Busy) as refused:
        admission.ask(Purpose.USER, 1)
    assert refused.value.retry_after is not None and refused.value.retry_after >= 0.5
    assert admission.waiting == 1
    admission.withdraw(waiting)
    assert admission.waiting == 0 and waiting.granted.result() is False


async def test_users_come_first_but_others_keep_their_floor() -> None:
    admission = Admission(max_running=2, max_waiting=10, kv_tokens=1000)
    running = [admission.ask(Purpose.USER, 1) for _ in range(2)]
    user, first, second = (admission.ask(purpose, 1) for purpose in (Purpose.USER, Purpose.LEARNER, Purpose.GATE))
    admission.release(running[0], 1.0)
    assert (ran(user), ran(first), ran(second)) == (False, True, False)
    admission.release(running[1], 1.0)
    assert (ran(user), ran(second)) == (True, False)
    admission.release(user, 1.0)
    assert ran(second)


async def test_others_that_wait_take_no_users_place_in_the_queue() -> None:
    admission = Admission(max_running=1, max_waiting=2, kv_tokens=100)
    admission.ask(Purpose.USER, 1)
    others = [admission.ask(Purpose.LEARNER, 1) for _ in range(2)]
    with pytest.raises(Busy):
        admission.ask(Purpose.GATE, 1)
    users = [admission.ask(Purpose.USER, 1) for _ in range(2)]
    with pytest.raises(Busy):
        admission.ask(Purpose.USER, 1)
    assert not any(map(ran, [*others, *users]))
    assert admission.waiting == 4
