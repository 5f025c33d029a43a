"""Outcomes from other threads reach the futures of a loop: all, in few wake-ups, and none where nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from services.shared.bus.loop_outcomes import LoopOutcomes


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _tell_all(outcomes: LoopOutcomes[int], futures: list[asyncio.Future[int]]) -> None:
    for number, future in enumerate(futures):
        outcomes.tell(future, number)


async def test_many_at_one_time_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wake_ups: list[Any] = []
    wake = loop.call_soon_threadsafe

    def counted(callback: Any, *args: Any, **options: Any) -> Any:
        wake_ups.append(callback)
        return wake(callback, *args, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    outcomes = LoopOutcomes[int](loop)
    for _ in range(2):
        futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(100)]
        in_a_thread(partial(_tell_all, outcomes, futures))
        assert await asyncio.wait_for(asyncio.gather(*futures), 5) == list(range(100))
    assert len(wake_ups) == 2


async def test_tellers_beside_one_another_lose_nothing() -> None:
    loop = asyncio.get_running_loop()
    outcomes = LoopOutcomes[int](loop)
    shares = [[loop.create_future() for _ in range(500)] for _ in range(4)]

    threads = [threading.Thread(target=_tell_all, args=(outcomes, share)) for share in shares]
    for thread in threads:
        thread.start()
    for share in shares:
        assert await asyncio.wait_for(asyncio.gather(*share), 10) == list(range(500))
    for thread in threads:
        thread.join()


async def test_a_failure_is_raised_and_a_cancelled_wait_changes_nothing() -> None:
    loop = asyncio.get_running_loop()
    outcomes = LoopOutcomes[int](loop)
    gone, failed, good = (loop.create_future() for _ in range(3))
    gone.cancel()

    def tell() -> None:
        outcomes.tell(gone, 1)
        outcomes.tell(failed, ValueError("no"))
        outcomes.tell(good, 3)

    in_a_thread(tell)
    with pytest.raises(ValueError, match="no"):
        await asyncio.wait_for(failed, 5)
    assert await asyncio.wait_for(good, 5) == 3


def test_a_closed_loop_is_nobody() -> None:
    loop = asyncio.new_event_loop()
    outcomes = LoopOutcomes[int](loop)
    future = loop.create_future()
    loop.close()
    in_a_thread(lambda: outcomes.tell(future, 1))
    assert not future.done()
