"""The read model of releases: thumbs by version, and pictures that change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest

from services.gateway.chat.generation import GenerationRequest, GeneratorStatus, Part
from services.gateway.releases.board import ReleaseBoard
from services.gateway.releases.facts import LearnerStatus, ReleaseFact
from services.gateway.releases.tally import Thumbs, ThumbTally
from services.gateway.releases.watchers import Watchers
from services.shared.domain.errors import Busy, ThumbloopError, Unavailable
from services.shared.domain.events import EventMeta
from services.shared.domain.feedback import Feedback, FeedbackKind, Thumb
from services.shared.domain.release import ReleaseKind, ReleaseState

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def thumb(rollout: str, up: bool | None, revision: int, *, retracted: bool = False) -> Feedback:
    return Feedback(
        meta=EventMeta(event_id="e", deployment="d", tenant="t", event_time=NOW),
        feedback_id="f",
        rollout_id=rollout,
        prompt_id="p",
        rater_id="r",
        kind=FeedbackKind.THUMB,
        body=None if up is None else Thumb(up=up),
        revision=revision,
        retracted=retracted,
        accept_time=NOW,
        token_key_id="k",
    )


def test_the_newest_thumb_of_an_answer_counts_once() -> None:
    tally = ThumbTally(10)
    tally.answer_started(rollout_id="a", policy_version="v1")
    tally.answer_started(rollout_id="b", policy_version="v1")
    tally.feedback_accepted(thumb("a", True, 1))
    tally.feedback_accepted(thumb("b", False, 1))
    assert tally.of("v1") == Thumbs(answers=2, up=1, down=1)
    tally.feedback_accepted(thumb("a", False, 3))
    tally.feedback_accepted(thumb("a", True, 2))
    assert tally.of("v1") == Thumbs(answers=2, up=0, down=2)
    tally.feedback_accepted(thumb("a", None, 4, retracted=True))
    assert tally.of("v1") == Thumbs(answers=2, up=0, down=1)


def test_the_tally_is_bounded() -> None:
    tally = ThumbTally(1)
    tally.answer_started(rollout_id="a", policy_version="v1")
    tally.answer_started(rollout_id="b", policy_version="v1")
    tally.feedback_accepted(thumb("a", True, 1))
    assert tally.of("v1") == Thumbs(answers=2, up=0, down=0)
    assert tally.of("v9") == Thumbs(answers=0, up=0, down=0)


class Source:
    """A learner that may be away."""

    def __init__(self) -> None:
        self.away = True
        self.known: tuple[ReleaseFact, ...] = ()
        self.defects: list[Exception] = []
        """Raised one a call."""

    async def releases(self, *, timeout_s: float) -> tuple[ReleaseFact, ...]:
        if self.defects:
            raise self.defects.pop()
        if self.away:
            raise Unavailable("away")
        return self.known

    async def status(self, *, timeout_s: float) -> LearnerStatus:
        if self.away:
            raise Unavailable("away")
        return LearnerStatus(
            phase="gating",
            paused=False,
            waiting_reason="",
            policy_version="v1",
            reward_model_version="r0",
            rollouts=1,
            feedback=1,
            ready=1,
            used=0,
            stale=0,
            thumbs_up=1,
            thumbs_down=0,
            reward_auroc=None,
            reward_auroc_low95=None,
            thumb_to_token_p50_s=None,
            thumb_to_token_p99_s=None,
        )


class AwayGenerator:
    """Answers nothing."""

    def generate(self, request: GenerationRequest, *, timeout_s: float) -> AsyncGenerator[Part, None]:
        raise Unavailable("away")

    async def status(self, *, timeout_s: float) -> GeneratorStatus:
        raise Unavailable("away")


def release(version: str) -> ReleaseFact:
    return ReleaseFact(
        version=version,
        kind=ReleaseKind.POLICY,
        parent_version="",
        state=ReleaseState.PUBLISHED,
        commit_time=1.0,
        publish_time=2.0,
        first_served_time=None,
        reward_model_version="",
        experiences=48,
        metrics={},
        gate_verdict=(),
        acknowledged_by=(),
    )


async def test_watchers_see_changes_and_the_last_that_was_known() -> None:
    source = Source()
    board = ReleaseBoard(source=source, generator=AwayGenerator(), tally=ThumbTally(10))
    pictures = (json.loads(shown) async for shown in board.watch(life_s=60.0, sign_s=60.0))
    empty = await anext(pictures)
    assert empty["releases"] == [] and empty["learner"] == {"reachable": False}
    source.away, source.known = False, (release("v1"),)
    following = asyncio.create_task(anext(pictures))
    await asyncio.sleep(0)
    await board.poll()
    full = await asyncio.wait_for(following, 5)
    assert [shown["version"] for shown in full["releases"]] == ["v1"]
    assert full["learner"]["reachable"] and full["learner"]["phase"] == "gating"
    assert full["releases"][0]["thumbs"] == {"answers": 0, "up": 0, "down": 0, "up_rate": None}
    source.away = True
    await board.poll()
    kept = await anext(pictures)
    assert not kept["learner"]["reachable"] and [shown["version"] for shown in kept["releases"]] == ["v1"]
    waiting = asyncio.create_task(anext(pictures, None))
    await asyncio.sleep(0)
    await board.close()
    assert await asyncio.wait_for(waiting, 5) is None


async def test_no_failure_ends_the_board() -> None:
    source = Source()
    source.away, source.known = False, (release("v1"),)
    source.defects = [ValueError("unforeseen"), ThumbloopError("a newer learner", reason="LEARNER_NEWER")]
    board = ReleaseBoard(source=source, generator=AwayGenerator(), tally=ThumbTally(10), interval_s=0.0)
    life = asyncio.create_task(board.run())
    async with asyncio.timeout(10):
        async for shown in board.watch(life_s=60.0):
            if shown and json.loads(shown)["releases"]:
                break
    assert source.defects == [] and not life.done()
    await board.close()
    await asyncio.wait_for(life, 10)


async def test_all_who_watch_see_one_picture_made_once() -> None:
    source = Source()
    board = ReleaseBoard(source=source, generator=AwayGenerator(), tally=ThumbTally(10))
    source.away, source.known = False, (release("v1"),)
    await board.poll()
    first, second = [await anext(board.watch(life_s=60.0)) for _ in range(2)]
    assert first is second is board.shown and json.loads(first)["releases"][0]["version"] == "v1"


async def test_watching_ends_and_says_now_and_then_that_it_goes_on() -> None:
    board = ReleaseBoard(source=Source(), generator=AwayGenerator(), tally=ThumbTally(10))
    async with asyncio.timeout(10):
        assert [shown async for shown in board.watch(life_s=0.0)] == [board.shown]
        pictures = board.watch(life_s=60.0, sign_s=0.0)
        assert [await anext(pictures) for _ in range(3)] == [board.shown, "", ""]


def test_places_of_watchers_are_bounded_and_come_back() -> None:
    watchers = Watchers(most=2, life_s=60.0)
    with watchers.place():
        with watchers.place(), pytest.raises(Busy) as refused, watchers.place():
            pass
        assert refused.value.retry_after is not None and refused.value.reason == "TOO_MANY_WATCHERS"
        with watchers.place():
            pass
