"""The bounded queue before the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest

from services.reward.base_model import Answer, PassResult
from services.reward.model_lane import ModelLane
from services.reward.scripted_base import ScriptedBase
from services.shared.domain.errors import Busy, Unavailable
from tests.support.patience import eventually


class SlowBase(ScriptedBase):
    """Each pass waits until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.sizes: list[int] = []

    def run(self, answers: Sequence[Answer]) -> list[PassResult]:
        self.begun.release()
        assert self.go.acquire(timeout=10)
        self.sizes.append(len(answers))
        if any(answer.temperature == 2.0 for answer in answers):
            raise ValueError("this pass fails")
        return super().run(answers)


def _answers(*tokens: int, temperature: float = 1.0) -> list[Answer]:
    return [Answer(prompt_token_ids=(1,), response_token_ids=(token,), temperature=temperature) for token in tokens]


@pytest.fixture
def base() -> SlowBase:
    return SlowBase()


@pytest.fixture
def lane(base: SlowBase) -> Iterator[ModelLane]:
    lane = ModelLane(base, max_batch=4, max_waiting=3)
    lane.start()
    yield lane
    for _ in range(10):
        base.go.release()
    lane.stop(5.0)


def test_waiting_callers_share_a_pass_and_get_their_own_results(base: SlowBase, lane: ModelLane) -> None:
    first = lane.try_submit(_answers(1))
    base.begun.acquire(timeout=5)
    others = [lane.try_submit(_answers(2, 3)), lane.try_submit(_answers(4, 5)), lane.try_submit(_answers(6))]
    for _ in range(3):
        base.go.release()
    assert len(first.result(5)) == 1
    alone = [ScriptedBase().run(_answers(*tokens)) for tokens in ((2, 3), (4, 5), (6,))]
    assert [other.result(5) for other in others] == alone
    assert base.sizes == [1, 4, 1]


def test_a_full_queue_refuses_at_once_and_lets_the_patient_wait(base: SlowBase, lane: ModelLane) -> None:
    lane.try_submit(_answers(1))
    base.begun.acquire(timeout=5)
    waiting = [lane.try_submit(_answers(n)) for n in (2, 3, 4)]
    with pytest.raises(Busy) as caught:
        lane.try_submit(_answers(5))
    assert caught.value.retry_after
    with pytest.raises(Busy):
        lane.submit(_answers(5), timeout_s=0.01)
    for _ in range(3):
        base.go.release()
    assert len(lane.submit(_answers(5), timeout_s=5).result(5)) == 1
    assert all(future.result(5) for future in waiting)


def test_a_failed_pass_is_told_to_those_who_wait_for_it_alone(base: SlowBase, lane: ModelLane) -> None:
    failed = lane.try_submit(_answers(1, temperature=2.0))
    base.begun.acquire(timeout=5)
    good = lane.try_submit(_answers(2))
    base.go.release()
    base.go.release()
    with pytest.raises(ValueError, match="this pass fails"):
        failed.result(5)
    assert len(good.result(5)) == 1


def test_stopping_fails_what_waits_and_takes_nothing_more(base: SlowBase) -> None:
    lane = ModelLane(base, max_batch=1)
    lane.start()
    running = lane.try_submit(_answers(1))
    base.begun.acquire(timeout=5)
    waiting = lane.try_submit(_answers(2))
    stopping = threading.Thread(target=lane.stop, args=(5.0,))
    stopping.start()
    base.go.release()
    base.go.release()
    stopping.join(5)
    assert running.result(5)
    assert waiting.exception(5) is None or isinstance(waiting.exception(5), Unavailable)
    with pytest.raises(Unavailable):
        lane.try_submit(_answers(3))


def test_stopping_minds_neither_who_gave_up_waiting_nor_who_comes_last(base: SlowBase) -> None:
    lane = ModelLane(base, max_batch=1, max_waiting=2)
    lane.start()
    lane.try_submit(_answers(1))
    base.begun.acquire(timeout=5)
    given_up, waiting = lane.try_submit(_answers(2)), lane.try_submit(_answers(3))
    assert given_up.cancel()
    late: list[Future[list[PassResult]]] = []
    patient = threading.Thread(target=lambda: late.append(lane.submit(_answers(4), timeout_s=10)))
    patient.start()
    stopping = threading.Thread(target=lane.stop, args=(10.0,))
    stopping.start()
    assert eventually(lambda: lane._stopping.is_set())
    base.go.release()
    stopping.join(10)
    patient.join(10)
    assert not stopping.is_alive() and not patient.is_alive()
    assert isinstance(waiting.exception(5), Unavailable)
    assert isinstance(late[0].exception(5), Unavailable)


def test_a_pass_tells_when_it_begins_and_whether_it_is_shared(base: SlowBase, lane: ModelLane) -> None:
    first = lane.try_submit(_answers(1))
    assert base.begun.acquire(timeout=10)
    assert first.begun.is_set() and first.alone
    others = [lane.try_submit(_answers(2)), lane.try_submit(_answers(3))]
    given_up = lane.try_submit(_answers(4))
    assert not any(other.begun.is_set() for other in others)
    assert given_up.cancel() and given_up.begun.is_set()
    base.go.release()
    assert base.begun.acquire(timeout=10)
    assert all(other.begun.is_set() and not other.alone for other in others)
