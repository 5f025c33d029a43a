"""From rollouts to scores: each at least once, whatever is away, and nothing stops at an event that cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.reward.base_model import Answer, PassResult
from services.reward.consumer import MOST_UNSCORABLE
from services.shared.bus.interface import REBALANCED, OutgoingEvent, Record
from services.shared.bus.memory import MemoryGroupReader
from services.shared.contracts.rollouts import SENT_BEFORE
from services.shared.contracts.topics import ROLLOUTS, dead_letter_topic
from services.shared.domain.errors import Unavailable
from services.shared.domain.reward_terms import total
from services.shared.domain.rollout import FinishReason, Purpose, Rollout
from tests.support.facts import BASE_DIGEST, make_meta, make_rollout
from tests.support.patience import eventually
from tests.unit.reward.reward_world import CountingBase, RewardWorld, heads_that_like


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RewardWorld]:
    world = RewardWorld(folder=tmp_path)
    yield world
    world.stop()


def test_scores_carry_version_log_probs_and_features(world: RewardWorld) -> None:
    version = world.go_live()
    world.send(make_rollout("r1", temperature=0.8), make_rollout("r2", temperature=0.0, purpose=Purpose.GATE))
    world.consumer.start()
    scores = {score.rollout_id: score for score in world.await_scores(2)}
    first = scores["r1"]
    assert first.reward_model_version == version
    assert (first.mean, first.spread) == (0.5, 0.0)
    assert len(first.reference_log_probs) == 4
    assert len(first.features) == 2 * world.base.feature_count
    assert first.feature_layout == world.base.feature_layout
    assert first.base_model_digest == world.base.digest != BASE_DIGEST
    assert first.temperature == pytest.approx(0.8)
    assert scores["r2"].temperature == 1.0
    assert eventually(lambda: world.committed() == 2)


def test_empty_and_invisible_responses_are_scored_explicitly(world: RewardWorld) -> None:
    world.go_live(heads=heads_that_like(0, world.base.feature_count))
    empty = make_rollout("none", versions=(), text="", finish_reason=FinishReason.CANCELLED)
    world.send(empty, make_rollout("blank", text=" \n"))
    world.consumer.start()
    scores = {score.rollout_id: score for score in world.await_scores(2)}
    assert scores["none"].terms == (("validity", -1.0),)
    assert scores["none"].features == b"" and scores["none"].mean == 0.0
    blank = dict(scores["blank"].terms)
    assert blank["validity"] == -1.0
    assert total(scores["blank"].terms) == pytest.approx(blank["thumb"] + blank["spread"] - 1.0, abs=1e-6)


def test_nothing_is_read_before_a_reward_model_is_live(world: RewardWorld) -> None:
    world.send(make_rollout("r1"))
    world.consumer.start()
    eventually(lambda: world.consumer.running)
    assert world.scores() == []
    world.go_live()
    assert eventually(world.scores)


def test_what_cannot_be_read_goes_to_the_dead_letters_with_its_reason(world: RewardWorld) -> None:
    world.go_live()
    world.bus.append(OutgoingEvent(topic=ROLLOUTS, key="bad", value=b"\xff\xff no rollout"))
    stranger = make_rollout("stranger")
    world.send(replace(stranger, meta=make_meta("stranger", deployment="elsewhere")))
    huge = make_rollout("huge")
    world.send(replace(huge, response_token_ids=(2_000_000,) * len(huge.response_token_ids)))
    world.send(make_rollout("good"))
    world.consumer.start()
    assert [score.rollout_id for score in eventually(world.scores)] == ["good"]
    dead = world.records(dead_letter_topic(ROLLOUTS))
    assert {record.key: record.headers["dlq-reason"] for record in dead} == {
        "bad": b"NOT_PROTOBUF",
        "stranger": b"OTHER_DEPLOYMENT",
        "huge": b"UNKNOWN_TOKEN",
    }
    assert eventually(lambda: world.committed() == 4)


def test_kafka_away_is_waited_out(world: RewardWorld) -> None:
    world.go_live()
    world.bus.go_away()
    world.consumer.start()
    world.bus.come_back()
    world.send(make_rollout("r1"))
    assert eventually(world.scores)
    assert world.consumer.running


def test_nothing_is_committed_before_the_scores_are_acknowledged(
    world: RewardWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores fail to be acknowledged twice; then they come, and only then the offsets move."""
    world.go_live()
    world.send(make_rollout("r1"))
    appended = world.bus.append
    seen: list[int] = []

    def failing(event: OutgoingEvent) -> Any:
        seen.append(world.committed())
        if len(seen) <= 2:
            raise Unavailable("the broker fell over")
        return appended(event)

    monkeypatch.setattr(world.bus, "append", failing)
    world.consumer.start()
    assert eventually(world.scores)
    assert eventually(lambda: world.committed() == 1)
    assert seen == [0, 0, 0]
    assert isinstance(world.base, CountingBase) and world.base.passes == [1]


def test_a_fault_of_the_model_ends_the_thread_and_commits_nothing(world: RewardWorld) -> None:
    world.go_live()
    assert isinstance(world.base, CountingBase)
    world.base.failure = ValueError("broken weights")
    world.send(make_rollout("r1"))
    world.consumer.start()
    assert eventually(lambda: not world.consumer.running)
    assert str(world.consumer.failure) == "broken weights"
    assert world.committed() == 0


class PoisonedBase(CountingBase):
    """Fails on, or makes nothing finite of, answers that hold token 13."""

    def __init__(self, *, raises: bool) -> None:
        super().__init__()
        self.raises = raises

    def run(self, answers: Sequence[Answer]) -> list[PassResult]:
        results = super().run(answers)
        poisoned = [13 in answer.response_token_ids for answer in answers]
        if self.raises and any(poisoned):
            raise IndexError("13 is out of range")
        return [
            replace(result, features=b"\xff" * len(result.features)) if bad else result
            for result, bad in zip(results, poisoned, strict=True)
        ]


def _poisoned(name: str) -> Rollout:
    rollout = make_rollout(name)
    return replace(rollout, response_token_ids=(13,) * len(rollout.response_token_ids))


@pytest.mark.parametrize("raises", [True, False])
def test_a_rollout_that_the_model_fails_on_does_not_stop_the_others(tmp_path: Path, raises: bool) -> None:
    world = RewardWorld(folder=tmp_path, base=PoisonedBase(raises=raises))
    world.go_live()
    world.send(make_rollout("r1"), _poisoned("bad"), make_rollout("r2"))
    world.consumer.start()
    assert {score.rollout_id for score in world.await_scores(2)} == {"r1", "r2"}
    assert eventually(lambda: world.committed() == 3)
    dead = world.records(dead_letter_topic(ROLLOUTS))
    assert [(record.key, record.headers["dlq-reason"]) for record in dead] == [("bad", b"NOT_SCORABLE")]
    assert world.consumer.running
    world.stop()


def test_one_that_comes_again_and_again_is_no_row_of_failures(tmp_path: Path) -> None:
    world = RewardWorld(folder=tmp_path, base=PoisonedBase(raises=True))
    world.go_live()
    world.consumer.start()
    for number in range(MOST_UNSCORABLE + 2):
        world.send(_poisoned("bad"))
        assert eventually(lambda number=number: world.committed() == 2 * number + 1)  # type: ignore[misc]
        world.send(make_rollout(f"good{number}"))
        assert eventually(lambda number=number: world.committed() == 2 * number + 2)  # type: ignore[misc]
    assert world.consumer.running
    assert len(world.records(dead_letter_topic(ROLLOUTS))) == MOST_UNSCORABLE + 2
    world.stop()


def test_what_is_sent_again_is_no_evidence_against_the_model(tmp_path: Path) -> None:
    """Rollouts that failed far apart come together when they come again."""
    world = RewardWorld(folder=tmp_path, base=PoisonedBase(raises=True))
    world.go_live()
    number = MOST_UNSCORABLE + 2
    world.send(*(_poisoned(f"bad{one}") for one in range(number)), headers={SENT_BEFORE: b"1"})
    world.consumer.start()
    assert eventually(lambda: world.committed() == number)
    assert world.consumer.running
    assert len(world.records(dead_letter_topic(ROLLOUTS))) == number
    world.stop()


def test_where_rollout_after_rollout_fails_it_is_not_the_rollouts(tmp_path: Path) -> None:
    world = RewardWorld(folder=tmp_path, base=PoisonedBase(raises=True))
    world.go_live()
    world.send(*(_poisoned(f"bad{number}") for number in range(MOST_UNSCORABLE + 1)))
    world.consumer.start()
    assert eventually(lambda: not world.consumer.running)
    assert isinstance(world.consumer.failure, IndexError)
    assert world.committed() == 0
    assert world.records(dead_letter_topic(ROLLOUTS)) == []
    world.stop()


def test_a_batch_that_takes_longer_than_the_group_waits_comes_in_smaller_parts(
    world: RewardWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that lets go of who scores more than four at a time: all are scored and committed all the same."""
    commit, tried = MemoryGroupReader.commit, list[int]()

    def slow(reader: MemoryGroupReader, records: Sequence[Record]) -> None:
        tried.append(len(records))
        if len(records) > 4:
            raise Unavailable("the group gave these to another", reason=REBALANCED, retry_after=0.0)
        commit(reader, records)

    monkeypatch.setattr(MemoryGroupReader, "commit", slow)
    world.go_live()
    world.send(*(make_rollout(f"r{number}") for number in range(30)))
    world.consumer.start()
    eventually(lambda: world.committed() == 30, what="all committed")
    assert max(tried) > 8, "nothing was too much"
    assert {score.rollout_id for score in world.scores()} == {f"r{number}" for number in range(30)}


class EndlessPass(Future[list[PassResult]]):
    """Begun, alone, and longer than anybody waits."""

    alone = True

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.begun.set()
        self.set_running_or_notify_cancel()

    def result(self, timeout: float | None = None) -> list[PassResult]:
        raise TimeoutError


def _slow(world: RewardWorld, monkeypatch: pytest.MonkeyPatch, *, most: int, endless: int = 0) -> list[int]:
    """The model reads `most` answers in the time that a pass has, and never one with token `endless`; sizes asked."""
    submit, asked = world.lane.submit, list[int]()

    def slow(answers: Sequence[Answer], *, timeout_s: float) -> Future[list[PassResult]]:
        asked.append(len(answers))
        if len(answers) > most or any(endless in answer.response_token_ids for answer in answers if endless):
            return EndlessPass()
        return submit(answers, timeout_s=timeout_s)

    monkeypatch.setattr(world.lane, "submit", slow)
    return asked


def test_what_one_poll_gives_may_take_longer_than_a_pass(world: RewardWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _slow(world, monkeypatch, most=3)
    world.go_live()
    world.send(*(make_rollout(f"r{number}") for number in range(30)))
    world.consumer.start()
    scores = world.await_scores(30)
    assert [score.rollout_id for score in scores] == [score.rollout_id for score in world.scores()]
    assert {score.rollout_id for score in scores} == {f"r{number}" for number in range(30)}
    assert eventually(lambda: world.committed() == 30)
    assert max(asked) <= 16, "more than the model takes at a time"
    assert world.records(dead_letter_topic(ROLLOUTS)) == []


def test_a_rollout_that_takes_too_long_by_itself_is_set_aside(
    world: RewardWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(world, monkeypatch, most=16, endless=13)
    world.go_live()
    world.send(make_rollout("r1"), _poisoned("bad"), make_rollout("r2"))
    world.consumer.start()
    assert {score.rollout_id for score in world.await_scores(2)} == {"r1", "r2"}
    assert eventually(lambda: world.committed() == 3)
    dead = world.records(dead_letter_topic(ROLLOUTS))
    assert [(record.key, record.headers["dlq-reason"]) for record in dead] == [("bad", b"NOT_SCORABLE")]
    assert world.consumer.running


def test_a_rollout_alone_in_the_topic_is_read_once_before_it_is_set_aside(
    world: RewardWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second try would take the time that the group gives a member."""
    asked = _slow(world, monkeypatch, most=16, endless=13)
    world.go_live()
    world.send(_poisoned("bad"))
    world.consumer.start()
    assert eventually(lambda: world.committed() == 1)
    assert asked == [1, 1], "the rollout, and the model's check"


def test_time_before_the_model_is_no_evidence_against_a_rollout(
    world: RewardWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's pass runs, or shares the rollout's: it is tried again."""
    submit, tried = world.lane.submit, list[EndlessPass]()

    def busy(answers: Sequence[Answer], *, timeout_s: float) -> Future[list[PassResult]]:
        if len(tried) == 2:
            return submit(answers, timeout_s=timeout_s)
        tried.append(EndlessPass())
        if len(tried) == 1:
            monkeypatch.setattr(tried[0].begun, "wait", lambda timeout=None: False)
        else:
            tried[1].alone = False
        return tried[-1]

    monkeypatch.setattr(world.lane, "submit", busy)
    world.go_live()
    world.send(make_rollout("r1"))
    world.consumer.start()
    assert [score.rollout_id for score in world.await_scores(1)] == ["r1"]
    assert len(tried) == 2 and world.records(dead_letter_topic(ROLLOUTS)) == []
