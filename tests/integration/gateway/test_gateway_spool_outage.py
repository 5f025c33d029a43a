"""Feedback while the broker is away, with a gateway that is killed in the middle.

Plan: a gateway as a process of its own, on a broker of the test's own. Thumbs are sent while the broker is there, then
while it is not; the gateway is killed with SIGKILL and started again, then the broker comes back. Pass: every answer
says truly where the thumb is, the state is known after the restart too, everything acknowledged is in the topic, the
first time in the order in which it was sent for each rollout, and the disk is empty at the end. And: a second gateway
on the folder is told so; a full spool is a 503; what a killed broker lost is sent again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc.aio
import httpx
import pytest
from thumbloop.learner.v1 import learner_pb2_grpc

from services.embedded.brokers import Broker
from services.embedded.ports import free_port
from services.gateway.spool.table import FILE_NAME
from services.gateway.tokens import FeedbackTokens
from services.shared.bus.dead_letters import read_whole
from services.shared.bus.interface import LogReader
from services.shared.contracts.feedback import decode_feedback
from services.shared.contracts.topics import FEEDBACK, load_topic_pages
from services.shared.domain.errors import Unavailable
from services.shared.domain.feedback import Feedback, FeedbackKind
from services.shared.ids import utc_now
from services.shared.secrets import KeyUse, load_or_create
from services.shared.settings.model import BusSettings
from tests.support.brokers import bus_with_topics
from tests.support.gateway import TestLearner, until

PROGRAM = (
    "from services.gateway.main import run; from services.shared.settings import load_settings; run(load_settings())"
)
BROKER_START_S = 60.0
ROUNDS = 6


@dataclass
class Stage:
    """A broker, a learner that knows what the topic holds, and a gateway between them."""

    folder: Path
    broker: Broker
    learner: TestLearner
    learner_port: int
    port: int
    tokens: FeedbackTokens
    http: httpx.AsyncClient
    log: LogReader
    seen: list[Feedback] = field(default_factory=list)
    """The topic's events, as far as they were read."""
    process: asyncio.subprocess.Process | None = None

    @property
    def spool(self) -> Path:
        return self.folder / "spool" / FILE_NAME

    def token(self, rollout_id: str) -> str:
        return self.tokens.issue(
            rater_id=f"rater-of-{rollout_id}", rollout_id=rollout_id, prompt_id="p", kinds=[FeedbackKind.THUMB]
        )

    async def send(self, name: str, rollout_id: str) -> httpx.Response:
        body = {"token": self.token(rollout_id), "kind": "thumb", "value": "up", "feedback_id": name}
        return await self.http.post("/v1/feedback", json=body)

    async def state(self, name: str, rollout_id: str) -> str:
        answer = await self.http.get(
            f"/v1/feedback/{name}", headers={"Authorization": f"Feedback {self.token(rollout_id)}"}
        )
        return str(answer.json().get("state", answer.text))

    async def start(self, **spool: object) -> None:
        """Returns when it serves."""
        self.process = await self._start_process(self.port, spool)
        await until(self._alive, what="the gateway to be alive", within_s=60)

    async def start_second(self) -> tuple[int, str]:
        """Another gateway on the same folder: its exit code and what it said."""
        port = free_port()
        second = await self._start_process(port, {})
        code = await asyncio.wait_for(second.wait(), 60)
        return code, (self.folder / f"gateway-{port}.log").read_text()

    async def kill(self) -> None:
        """SIGKILL to the whole process group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def end(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), 30) == 0

    async def read_until(self, names: set[str]) -> None:
        """Reads the topic until all these were seen; the learner's store has what was read."""

        async def all_there() -> bool:
            try:
                records = await asyncio.to_thread(self.log.poll, 0.2)
            except Unavailable:
                return False
            self.seen += [decode_feedback(record.value) for record in records]
            self.learner.stored |= {event.feedback_id for event in self.seen}
            return names <= self.learner.stored

        await until(all_there, what=f"the topic to have all of {len(names)}", within_s=60)

    async def read_from_the_start(self) -> bool:
        """Offsets of what was lost are used again. False: the log is not there yet."""
        try:
            places = await asyncio.to_thread(self.log.places, FEEDBACK)
            self.log.assign(await asyncio.to_thread(self.log.beginning_offsets, places))
        except Unavailable:
            return False
        return True

    async def names_in_log(self) -> set[str]:
        """Feedback ids of all that the topic holds."""
        found: set[str] = set()

        def read() -> bool:
            try:
                places = self.log.places(FEEDBACK)
                found.update(decode_feedback(record.value).feedback_id for record in read_whole(self.log, places))
            except Unavailable:
                return False
            return True

        await until(lambda: asyncio.to_thread(read), what="the log to be there", within_s=60)
        return found

    def lying(self) -> set[str]:
        """Feedback ids on the gateway's disk."""
        with closing(sqlite3.connect(self.spool)) as connection:
            return {row[0] for row in connection.execute("SELECT feedback_id FROM items")}

    async def _start_process(self, port: int, spool: Mapping[str, object]) -> asyncio.subprocess.Process:
        control_port = free_port()
        env = {
            **os.environ,
            "THUMBLOOP_DEPLOYMENT__DATA_DIR": str(self.folder),
            "THUMBLOOP_ACCESS__ANONYMOUS_CHAT": "true",
            "THUMBLOOP_GATEWAY__PORT": str(port),
            "THUMBLOOP_GATEWAY__CONTROL_PORT": str(control_port),
            "THUMBLOOP_GATEWAY__GENERATOR_ADDRESS": "127.0.0.1:1",
            "THUMBLOOP_GATEWAY__LEARNER_ADDRESS": f"127.0.0.1:{self.learner_port}",
            "THUMBLOOP_BUS__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "THUMBLOOP_BUS__EMBEDDED": str(self.broker.embedded),
            "THUMBLOOP_GATEWAY__SPOOL__PATIENCE_S": "1",
            "THUMBLOOP_GATEWAY__SPOOL__CONFIRM_INTERVAL_S": "0.1",
            "THUMBLOOP_GATEWAY__SPOOL__RESEND_AFTER_S": "1",
            **{f"THUMBLOOP_GATEWAY__SPOOL__{name.upper()}": str(value) for name, value in spool.items()},
        }
        with (self.folder / f"gateway-{port}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, env=env, stderr=log, start_new_session=True
            )

    async def _alive(self) -> bool:
        assert self.process is not None and self.process.returncode is None, "the gateway ended at its start"
        try:
            return (await self.http.get("/healthz")).status_code == 200
        except httpx.TransportError:
            return False


@asynccontextmanager
async def open_stage(folder: Path, broker: Broker) -> AsyncIterator[Stage]:
    settings = BusSettings(bootstrap_servers=broker.bootstrap_servers, embedded=broker.embedded)
    async with AsyncExitStack() as stack:
        bus = bus_with_topics(settings, [load_topic_pages()[FEEDBACK]])
        stack.callback(bus.close)
        reader = bus.log_reader("test")
        reader.assign(reader.beginning_offsets(reader.places(FEEDBACK)))
        learner, server = TestLearner(), grpc.aio.server()  # type: ignore[abstract]  # answers what the gateway asks
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(learner, server)
        learner_port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        port = free_port()
        stage = Stage(
            folder=folder,
            broker=broker,
            learner=learner,
            learner_port=learner_port,
            port=port,
            tokens=FeedbackTokens(
                deployment="local",
                tenant="default",
                keys=load_or_create(folder / "secrets", KeyUse.FEEDBACK_TOKEN, utc_now),
                ttl=timedelta(hours=1),
                clock=utc_now,
            ),
            http=await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)),
            log=reader,
        )
        try:
            yield stage
        finally:
            if stage.process is not None and stage.process.returncode is None:
                await stage.kill()


@pytest.fixture
async def stage(own_broker: Broker, tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, own_broker) as opened:
        yield opened


async def test_nothing_acknowledged_is_lost_when_broker_and_gateway_go(stage: Stage) -> None:
    await stage.start()
    sent: list[tuple[str, str]] = []
    for number in range(5):
        answer = await stage.send(f"before-{number}", f"rollout-{number % 3}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] in {"accepted", "spooled"}, "spooled: the log took longer than the gateway waits"
        sent.append((f"before-{number}", f"rollout-{number % 3}"))
    await asyncio.to_thread(stage.broker.stop)
    for number in range(20):
        answer = await stage.send(f"away-{number}", f"rollout-{number % 4}")
        assert (answer.status_code, answer.json()["state"]) == (200, "spooled"), answer.text
        sent.append((f"away-{number}", f"rollout-{number % 4}"))
    assert await stage.state("away-7", "rollout-3") == "spooled"
    await stage.kill()
    assert stage.lying() >= {f"away-{number}" for number in range(20)}
    await stage.start()
    assert await stage.state("away-7", "rollout-3") == "spooled"
    again = await stage.send("away-7", "rollout-3")
    assert again.json()["state"] == "spooled"
    ready = (await stage.http.get("/readyz")).json()["missing"]
    assert not any("log" in missing for missing in ready), ready
    await asyncio.to_thread(stage.broker.start, BROKER_START_S)
    await stage.read_until({name for name, _ in sent})
    await until(lambda: not stage.lying(), what="the spool to be empty", within_s=30)
    await stage.end()
    first_seen = list(dict.fromkeys((event.feedback_id, event.rollout_id) for event in stage.seen))
    for rollout in {rollout for _, rollout in sent}:
        assert [one for one in first_seen if one[1] == rollout] == [one for one in sent if one[1] == rollout]
    assert sorted(first_seen) == sorted(sent)


async def test_a_full_spool_is_a_503_and_a_second_owner_is_told(stage: Stage) -> None:
    await asyncio.to_thread(stage.broker.stop)
    await stage.start(max_items=3)
    answers = [await stage.send(f"f{number}", f"r{number}") for number in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 503, 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers[3:])
    assert stage.lying() == {"f0", "f1", "f2"}
    code, said = await stage.start_second()
    assert code != 0 and "belongs to another running gateway" in said
    await stage.kill()


async def test_what_a_killed_broker_lost_is_sent_again(stage: Stage) -> None:
    """The gateway is killed first, so that what the broker kept is seen before anything is sent again. The embedded one
    may lose its tail, or have written all by then: more rounds until it did. Apache Kafka keeps what it acknowledged.
    """
    for round_ in range(ROUNDS):
        await stage.start()
        sent = {f"f{round_}-{number}": f"r{number}" for number in range(40)}
        for name, rollout in sent.items():
            assert (await stage.send(name, rollout)).status_code == 200
        await stage.kill()
        await asyncio.to_thread(stage.broker.kill)
        await asyncio.to_thread(stage.broker.start, BROKER_START_S)
        kept = await stage.names_in_log()
        assert stage.broker.embedded or kept | stage.lying() >= set(sent)
        await stage.start()
        await until(stage.read_from_the_start, what="the log to be read again", within_s=60)
        await stage.read_until(set(sent))
        await until(lambda: not stage.lying(), what="the spool to be empty", within_s=30)
        if not stage.broker.embedded or not set(sent) <= kept:
            return
        await stage.kill()
    pytest.fail(f"the broker lost nothing in {ROUNDS} rounds, so nothing was shown")
