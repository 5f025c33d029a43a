"""What the service keeps and tells: of people forgotten while they speak, and of statements not yet ingested."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from services.gateway.feedback.body import EditStatement, ThumbStatement
from services.gateway.feedback.earlier import EarlierRevisions
from services.gateway.feedback.fate import FeedbackFate, NothingSpooled, SpooledStatements
from services.gateway.feedback.recent import Acknowledged, RecentFeedback
from services.gateway.feedback.service import FeedbackService
from services.gateway.feedback.sink import SpoolSearch
from services.gateway.feedback.turns import StatementId
from services.gateway.forgetting.memory import GatewayMemory
from services.gateway.spool.item import spool_item
from services.gateway.spool.spool import FeedbackSpool
from services.gateway.tokens import FeedbackClaims, FeedbackTokens
from services.shared.domain.control import Forget
from services.shared.domain.errors import Busy, Conflict, NotFound, PermissionDenied, ThumbloopError, Unavailable
from services.shared.domain.feedback import Comparison, Edit, Feedback, FeedbackKind, FeedbackState, Thumb
from services.shared.releases.forget_orders import ForgottenRaters
from tests.support.facts import START, TENANT, make_feedback, make_thumb
from tests.support.spool import FaultyDisk, names, open_spool, put

ALICE, BOB = "alice", "bob"
THUMB = ThumbStatement(token="t", kind="thumb", value="up", feedback_id="mine")


def claims(rater: str = ALICE) -> FeedbackClaims:
    return FeedbackClaims(
        tenant=TENANT,
        rater_id=rater,
        rollout_id="r1",
        prompt_id="p1",
        kinds=tuple(FeedbackKind),
        expiry=datetime(2030, 1, 1, tzinfo=UTC),
        key_id="k",
    )


class Tokens:
    """A token is its rater's name; "t" is Alice's."""

    def check(self, token: str, *, field: str = "token") -> FeedbackClaims:
        return claims(ALICE if token == "t" else token)


@dataclass
class Limits:
    """By default none; who took is noted."""

    taken: list[str] = field(default_factory=list)
    most: int = 1_000

    def take(self, key: str) -> None:
        self.taken.append(key)
        if len(self.taken) > self.most:
            raise Busy("too many")


@dataclass
class Gate:
    """Where whoever comes waits while it is closed."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def pass_through(self) -> None:
        self.reached.set()
        await self.opened.wait()


@dataclass
class Sink:
    """Stores, by default in nothing but a list."""

    gate: Gate
    stored: list[Feedback] = field(default_factory=list)
    spool: FeedbackSpool | None = None

    async def store(self, feedback: Feedback) -> FeedbackState:
        await self.gate.pass_through()
        if self.spool is not None:
            await asyncio.wrap_future(self.spool.put(spool_item(feedback)))
        self.stored.append(feedback)
        return FeedbackState.SPOOLED if self.spool is not None else FeedbackState.ACCEPTED


@dataclass
class Learner:
    """Knows `fates` by feedback id, or fails."""

    gate: Gate
    fates: dict[str, FeedbackFate] = field(default_factory=dict)
    failure: ThumbloopError | None = None

    async def find(
        self, *, tenant: str, feedback_id: str, rater_id: str, rollout_id: str, timeout_s: float
    ) -> FeedbackFate | None:
        await self.gate.pass_through()
        if self.failure is not None:
            raise self.failure
        return self.fates.get(feedback_id)


class World:
    """A service and what stands around it; the gates are open."""

    def __init__(self, spool: FeedbackSpool | None = None, forgotten: ForgottenRaters | None = None) -> None:
        self.sink, self.learner = Sink(Gate(), spool=spool), Learner(Gate())
        self.sink.gate.opened.set()
        self.learner.gate.opened.set()
        self.recent, self.read_limits = RecentFeedback(100), Limits()
        self.forgotten = forgotten or ForgottenRaters()
        self.accepted: list[Feedback] = []
        spooled: SpooledStatements = NothingSpooled() if spool is None else SpoolSearch(spool)
        numbers = itertools.count()
        self.service = FeedbackService(
            tokens=cast(FeedbackTokens, Tokens()),
            sink=self.sink,
            lookup=self.learner,
            spooled=spooled,
            recent=self.recent,
            earlier=EarlierRevisions(self.learner, monotonic=lambda: 0.0),
            limits=Limits(),
            read_limits=self.read_limits,
            forgotten=self.forgotten,
            on_accepted=self.accepted.append,
            deployment="test",
            new_id=lambda: f"id-{next(numbers)}",
            clock=lambda: START,
        )

    def remembers(self, rater: str = ALICE, name: str = "mine") -> bool:
        return self.recent.find(StatementId(TENANT, rater, name)) is not None

    def begin(self, gate: Gate) -> asyncio.Task[Any]:
        """A statement that waits at a gate, or will."""
        gate.opened.clear()
        return asyncio.create_task(self.service.submit(THUMB, traceparent=""))


async def reached(gate: Gate) -> None:
    async with asyncio.timeout(10):
        await gate.reached.wait()


async def test_who_is_forgotten_while_a_statement_is_stored_is_told_so_and_not_remembered() -> None:
    world = World()
    sending = world.begin(world.sink.gate)
    await reached(world.sink.gate)
    assert world.service.has_in_hand(TENANT, ALICE) and not world.service.has_in_hand(TENANT, BOB)
    world.forgotten.add(TENANT, ALICE)
    world.recent.forget(TENANT, ALICE, [])
    world.sink.gate.opened.set()
    with pytest.raises(PermissionDenied) as refused:
        await sending
    assert refused.value.reason == "PERSON_FORGOTTEN"
    assert not world.remembers() and world.accepted == [] and not world.service.has_in_hand(TENANT, ALICE)


async def test_who_is_forgotten_while_the_learner_is_asked_reaches_no_sink() -> None:
    world = World()
    sending = world.begin(world.learner.gate)
    await reached(world.learner.gate)
    world.forgotten.add(TENANT, ALICE)
    world.learner.gate.opened.set()
    with pytest.raises(PermissionDenied):
        await sending
    assert world.sink.stored == [] and not world.remembers()


async def test_a_client_that_goes_leaves_nothing_in_hand() -> None:
    world = World()
    sending = world.begin(world.sink.gate)
    await reached(world.sink.gate)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert not world.service.has_in_hand(TENANT, ALICE)


async def test_an_order_that_meets_a_running_statement_leaves_nothing_of_it(tmp_path: Path) -> None:
    forgotten = ForgottenRaters()
    with open_spool(tmp_path, forgotten=forgotten) as spool:
        world = World(spool, forgotten)
        put(spool, "earlier", rater=ALICE)
        memory = GatewayMemory(
            asyncio.get_running_loop(),
            forgotten=forgotten,
            drops=[world.recent.forget],
            in_hand=[world.service.has_in_hand],
            spool=spool,
        )
        sending = world.begin(world.sink.gate)
        await reached(world.sink.gate)
        with pytest.raises(Busy):
            await asyncio.to_thread(memory.forget, "c-1", TENANT, Forget(rater_id=ALICE))
        assert names(spool) == []
        world.sink.gate.opened.set()
        with pytest.raises(PermissionDenied):
            await sending
        await asyncio.to_thread(memory.forget, "c-1", TENANT, Forget(rater_id=ALICE))
        assert spool.items == 0 and not world.remembers()


def fate(name: str, rater: str = ALICE) -> FeedbackFate:
    return FeedbackFate(
        feedback_id=name, state=FeedbackState.JOINED, rollout_id="r1", rater_id=rater, kind="thumb", revision=1
    )


async def test_a_tenants_key_is_told_what_is_known_here(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        world = World(spool)
        put(spool, "of-before", rater=BOB)
        world.recent.remember(
            StatementId(TENANT, ALICE, "mine"), Acknowledged.of(make_thumb("mine", rater=ALICE), FeedbackState.ACCEPTED)
        )
        for away in (None, Unavailable("the learner is away")):
            world.learner.failure = away
            for name, state, rater in (
                ("mine", FeedbackState.ACCEPTED, ALICE),
                ("of-before", FeedbackState.SPOOLED, BOB),
            ):
                found = await world.service.fate_for_tenant(name, tenant=TENANT)
                assert (found.state, found.rater_id, found.feedback_id) == (state, rater, name)
            with pytest.raises(NotFound if away is None else Unavailable):
                await world.service.fate_for_tenant("mine", tenant="another")
        world.learner.failure = None
        world.learner.fates["mine"] = fate("mine")
        assert (await world.service.fate_for_tenant("mine", tenant=TENANT)).state is FeedbackState.JOINED


async def test_a_disk_that_fails_hides_nothing_that_is_known_elsewhere(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with open_spool(tmp_path, disk=disk) as spool:
        world = World(spool)
        await world.service.submit(THUMB, traceparent="")
        world.learner.fates["ingested"] = fate("ingested")
        disk.connection.failing = True
        assert (await world.service.fate("ingested", token="t")).state is FeedbackState.JOINED
        assert (await world.service.fate("mine", token="t")).state is FeedbackState.SPOOLED
        with pytest.raises(Unavailable) as refused:
            await world.service.fate("unknown", token="t")
        assert refused.value.reason == "SPOOL_UNREADABLE"


async def test_who_asks_too_often_reaches_neither_learner_nor_disk() -> None:
    world = World()
    world.read_limits.most = 1
    world.learner.fates["mine"] = fate("mine")
    assert (await world.service.fate("mine", token="t")).state is FeedbackState.JOINED
    world.learner.gate.opened.clear()  # who came so far would wait
    with pytest.raises(Busy):
        await asyncio.wait_for(world.service.fate("mine", token="t"), 10)
    assert world.read_limits.taken == [f"{TENANT}/{ALICE}"] * 2


async def test_anothers_statement_is_refused_and_ones_own_of_that_id_is_told() -> None:
    world = World()
    world.learner.fates["mine"] = fate("mine", rater=BOB)
    with pytest.raises(PermissionDenied):
        await world.service.fate("mine", token="t")
    await world.service.submit(THUMB.model_copy(update={"feedback_id": "mine"}), traceparent="")
    assert (await world.service.fate("mine", token="t")).rater_id == ALICE
    assert (await world.service.fate("mine", token=BOB)).rater_id == BOB


async def test_texts_are_not_kept_and_still_told_apart() -> None:
    world = World()
    text = "the answer as it should have been " * 100
    edit = EditStatement(token="t", kind="edit", text=text, feedback_id="mine")
    first = await world.service.submit(edit, traceparent="")
    again = await world.service.submit(edit, traceparent="")
    assert again.repeated and again.acknowledged is first.acknowledged
    with pytest.raises(Conflict):
        await world.service.submit(edit.model_copy(update={"text": text + "!"}), traceparent="")
    assert len(pickle.dumps(first.acknowledged)) < 1_000


@pytest.mark.parametrize(
    "change",
    [
        lambda said: make_feedback("f", body=Thumb(up=False)),
        lambda said: make_feedback("f", body=said, rollout="r2"),
        lambda said: make_feedback("f", body=said, retracted=True),
        lambda said: make_feedback("f", retracted=True),
    ],
)
@pytest.mark.parametrize("said", [Thumb(up=True), Comparison(rejected_rollout_id="r9"), Edit(text="so")])
def test_only_the_same_says_the_same(said: Any, change: Callable[[Any], Feedback]) -> None:
    kept = Acknowledged.of(make_feedback("f", body=said), FeedbackState.ACCEPTED)
    assert kept.says_the_same(make_feedback("f", body=said, revision=7))
    assert not kept.says_the_same(change(said))
