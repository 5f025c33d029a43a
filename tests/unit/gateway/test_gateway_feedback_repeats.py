"""What is sent again: one at a time under an id, and ids of the time before a restart."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from services.gateway.feedback.earlier import BURST, WINDOW_S, EarlierRevisions
from services.gateway.feedback.fate import FeedbackFate
from services.gateway.feedback.turns import StatementId, Turns
from services.gateway.tokens import FeedbackClaims
from services.shared.domain.errors import Unavailable
from services.shared.domain.feedback import FeedbackKind, FeedbackState

CLAIMS = FeedbackClaims(
    tenant="t",
    rater_id="ann",
    rollout_id="r1",
    prompt_id="p",
    kinds=tuple(FeedbackKind),
    expiry=datetime(2030, 1, 1, tzinfo=UTC),
    key_id="k",
)


class Learner:
    """Knows one statement, or is away."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.defect: Exception | None = None
        self.slot = ("ann", "r1", "thumb")

    async def find(
        self, *, tenant: str, feedback_id: str, rater_id: str, rollout_id: str, timeout_s: float
    ) -> FeedbackFate | None:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        if self.defect is not None:
            raise self.defect
        if feedback_id != "known":
            return None
        rater, rollout, kind = self.slot
        return FeedbackFate(
            feedback_id="known",
            state=FeedbackState.JOINED,
            rollout_id=rollout,
            rater_id=rater,
            kind=kind,
            revision=7,
        )


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_known_id_keeps_its_revision() -> None:
    earlier = EarlierRevisions(Learner(), monotonic=Seconds())
    assert await earlier.find("known", kind="thumb", claims=CLAIMS) == 7
    assert await earlier.find("other", kind="thumb", claims=CLAIMS) is None
    assert await earlier.find("known", kind="rating", claims=CLAIMS) is None


@pytest.mark.parametrize("slot", [("eve", "r1", "thumb"), ("ann", "r2", "thumb")])
async def test_anothers_statement_gives_no_revision(slot: tuple[str, str, str]) -> None:
    learner = Learner()
    learner.slot = slot
    assert await EarlierRevisions(learner, monotonic=Seconds()).find("known", kind="thumb", claims=CLAIMS) is None


async def test_the_learner_is_asked_rarely_and_only_after_the_start() -> None:
    learner, seconds = Learner(), Seconds()
    earlier = EarlierRevisions(learner, monotonic=seconds)
    for _ in range(1000):
        await earlier.find("known", kind="thumb", claims=CLAIMS)
    assert learner.asked == BURST
    seconds.now += WINDOW_S + 1
    assert await earlier.find("known", kind="thumb", claims=CLAIMS) is None
    assert learner.asked == BURST


async def test_a_learner_that_is_away_is_no_failure() -> None:
    learner = Learner()
    learner.away = True
    assert await EarlierRevisions(learner, monotonic=Seconds()).find("known", kind="thumb", claims=CLAIMS) is None


async def test_a_defect_in_asking_costs_no_statement() -> None:
    learner = Learner()
    learner.defect = ValueError("99 is not a valid FeedbackState")
    assert await EarlierRevisions(learner, monotonic=Seconds()).find("known", kind="thumb", claims=CLAIMS) is None


async def test_one_at_a_time_and_nothing_is_kept() -> None:
    turns, order = Turns(), []
    mine, other = StatementId("t", "ann", "f"), StatementId("t", "eve", "f")

    async def work(statement_id: StatementId, name: str) -> None:
        async with turns.of(statement_id):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(work(mine, "a"), work(mine, "b"), work(other, "c"))
    assert order.index("b in") > order.index("a out")
    assert order.index("c in") < order.index("a out"), "another's id does not wait"
    assert len(turns) == 0


async def test_who_gives_up_waiting_lets_the_next_one_on() -> None:
    turns = Turns()
    name = StatementId("t", "ann", "f")

    async def wait() -> None:
        async with turns.of(name):
            pass

    async with turns.of(name):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await wait()
    assert len(turns) == 0
