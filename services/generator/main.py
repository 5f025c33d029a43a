"""Wiring of the generator room, as a process: `run` blocks until SIGTERM or SIGINT, then drains.

Nothing here decides anything. The room is ready (health SERVING) once the live version of the policy is staged; an
engine that fails ends the process, so that whoever supervises it starts it again.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from thumbloop.generator.v1 import generator_pb2, generator_pb2_grpc

from services.generator.access import METHODS
from services.generator.admission import Admission
from services.generator.engines.interface import Engine
from services.generator.forgetting import GeneratorMemory
from services.generator.generation import ChatTokenizer
from services.generator.recording import Recording, open_recording
from services.generator.release_target import EngineTarget
from services.generator.service import GeneratorServicer
from services.generator.session import SessionParts
from services.generator.sessions import Sessions
from services.shared.access.room import RoomAccess, follow_access
from services.shared.access.service_credential import service_credential
from services.shared.bus import open_bus
from services.shared.bus.interface import Bus
from services.shared.checkpoints import CheckpointStore
from services.shared.checkpoints.adapters import ADAPTER_FILE, ADAPTER_SETTINGS_FILE
from services.shared.checkpoints.models import resolve_model
from services.shared.domain.release import ReleaseKind
from services.shared.ids import new_id, utc_now
from services.shared.releases.acknowledger import ControlAcknowledger, ReleaseAcknowledger
from services.shared.releases.control_follower import ControlFollower
from services.shared.releases.follower import ReleaseFollower
from services.shared.releases.forget_orders import ForgottenRaters, forget_only
from services.shared.rpc import RpcServer, open_sync_channel
from services.shared.settings import Settings
from services.shared.telemetry.log import configure, get_logger
from services.shared.telemetry.metrics import Metrics
from services.shared.torch_process import prepare_torch

_log = get_logger()
_WATCH_S = 0.2
_GRACE_S = 20.0
SERVICE_NAME = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name


def run(settings: Settings) -> None:
    """Serves until it is told to end. Raises Misconfigured where it cannot start, RuntimeError where a part died."""
    configure(settings.deployment, "generator")
    asyncio.run(_serve(settings))


@dataclass(kw_only=True)
class Room:
    """The parts that run."""

    engine: Engine
    sessions: Sessions
    admission: Admission
    recording: Recording
    server: RpcServer
    acknowledger: ReleaseAcknowledger
    follower: ReleaseFollower
    orders: ControlFollower
    order_acknowledger: ControlAcknowledger
    access: RoomAccess
    metrics: Metrics

    async def start(self) -> None:
        """Listens, not ready yet. The engine runs already."""
        await self.server.start()
        self.access.follower.start()
        self.recording.start()
        self.acknowledger.start()
        self.order_acknowledger.start()
        self.follower.start()
        self.orders.start()

    async def drain(self, grace_s: float = _GRACE_S) -> None:
        """Answers and records what was accepted; a release that comes meanwhile is left alone."""
        await self.server.set_serving(False)
        await asyncio.to_thread(self.follower.stop)
        await asyncio.gather(self.sessions.drain(grace_s), self.server.drain(grace_s + 5.0))
        await self.engine.stop()
        await asyncio.to_thread(self.orders.stop)
        await self.recording.stop()
        await asyncio.to_thread(self.acknowledger.stop)
        await asyncio.to_thread(self.order_acknowledger.stop)
        await asyncio.to_thread(self.access.follower.stop)
        self.recording.close()

    def problem(self) -> str:
        """What has died; "" while all is well."""
        if self.engine.failure:
            return f"the engine: {self.engine.failure}"
        return "" if self.recording.publisher.running else "the rollout queue's sender"

    def note_load(self) -> None:
        """Keeps the gauges."""
        self.metrics.set("thumbloop_generator_running_responses", self.admission.running)
        self.metrics.set("thumbloop_generator_waiting_responses", self.admission.waiting)


def make_engine(settings: Settings) -> tuple[Engine, ChatTokenizer]:
    """The engine and tokenizer that the settings ask for. torch is imported only where it is needed."""
    generator = settings.generator
    if generator.engine == "scripted":
        from services.generator.engines.scripted import ScriptedEngine
        from services.generator.engines.scripted_language import ScriptedTokenizer

        engine = ScriptedEngine(
            clock=utc_now,
            interval_s=generator.scripted_token_interval_s,
            max_running=generator.max_running,
            context_tokens=generator.context_tokens,
        )
        return engine, ScriptedTokenizer()
    from services.generator.engines.continuous_batching import ContinuousBatchingEngine
    from services.generator.prompt import HuggingFaceTokenizer

    prepare_torch()
    folder = resolve_model(settings.model)
    return (
        ContinuousBatchingEngine(
            model_dir=folder,
            clock=utc_now,
            device=settings.model.device,
            dtype=generator.dtype,
            max_running=generator.max_running,
            context_tokens=generator.context_tokens,
        ),
        HuggingFaceTokenizer(folder),
    )


def make_room(
    settings: Settings, engine: Engine, tokenizer: ChatTokenizer, bus: Bus, metrics: Metrics, learner: Any
) -> Room:
    """Parts and their connections, around a started engine. Needs a running event loop. `learner` is a blocking channel
    to the learner.
    """
    generator = settings.generator
    own_dir = settings.deployment.data_dir / "generator" / generator.replica_id
    recording = open_recording(
        settings, own_dir, publisher=bus.publisher(generator.replica_id), learner=learner, metrics=metrics
    )
    admission = Admission(
        max_running=engine.capabilities.max_running,
        max_waiting=generator.max_waiting,
        kv_tokens=engine.capabilities.kv_tokens,
    )
    forgotten = ForgottenRaters()
    sessions = Sessions(
        SessionParts(
            engine=engine,
            tokenizer=tokenizer,
            admission=admission,
            sink=recording.publisher,
            clock=utc_now,
            new_id=new_id,
            metrics=metrics,
            deployment=settings.deployment.name,
            forgotten=forgotten,
        )
    )
    memory = GeneratorMemory(
        asyncio.get_running_loop(),
        forgotten=forgotten,
        answers=sessions,
        sender=recording.publisher,
        queue=recording.queue,
    )
    order_acknowledger = ControlAcknowledger(channel=learner, replica_id=generator.replica_id)
    orders = ControlFollower(
        deployment=settings.deployment.name,
        open_reader=lambda: bus.log_reader(f"{generator.replica_id}-orders"),
        carry_out=forget_only(memory.forget),
        acknowledge=order_acknowledger,
        metrics=metrics,
    )
    acknowledger = ReleaseAcknowledger(channel=learner, replica_id=generator.replica_id)
    follower = ReleaseFollower(
        kind=ReleaseKind.POLICY,
        deployment=settings.deployment.name,
        open_reader=lambda: bus.log_reader(f"{generator.replica_id}-follower"),
        source=CheckpointStore(settings.checkpoints_url),
        target=EngineTarget(engine, metrics),
        acknowledge=acknowledger,
        staging_dir=own_dir / "staging",
        metrics=metrics,
        names=(ADAPTER_FILE, ADAPTER_SETTINGS_FILE),
        base_model_digest=engine.base_model_digest,
    )
    servicer = GeneratorServicer(
        sessions=sessions, engine=engine, admission=admission, follower=lambda: follower.status
    )
    access = follow_access(settings, replica_id=generator.replica_id, learner=learner)
    server = RpcServer(
        generator.host,
        generator.port,
        [lambda grpc_server: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, grpc_server)],
        [SERVICE_NAME],
        guard=access.guard(METHODS),
    )
    return Room(
        engine=engine,
        sessions=sessions,
        admission=admission,
        recording=recording,
        server=server,
        acknowledger=acknowledger,
        follower=follower,
        orders=orders,
        order_acknowledger=order_acknowledger,
        access=access,
        metrics=metrics,
    )


async def _serve(settings: Settings) -> None:
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    with ExitStack() as stack:
        metrics = Metrics(room="generator")
        stack.enter_context(metrics.serve(settings.generator.host, settings.generator.metrics_port))
        bus = open_bus(settings.bus)
        stack.callback(bus.close)
        learner = open_sync_channel(settings.generator.learner_address, credential=service_credential(settings))
        stack.callback(learner.close)
        engine, tokenizer = await asyncio.to_thread(make_engine, settings)
        await engine.start()
        try:
            # Whatever fails from here on, the engine must end: its threads would keep the process.
            await _run_room(make_room(settings, engine, tokenizer, bus, metrics, learner), ending)
        finally:
            await engine.stop()


async def _run_room(room: Room, ending: asyncio.Event) -> None:
    """Until told to end, then drains. Raises RuntimeError where a part died."""
    await room.start()
    _log.info("generator_listens", port=room.server.port, engine=room.engine.capabilities.engine)
    problem = ""
    try:
        problem = await watch(room, ending)
    finally:
        await room.drain(0.0 if problem else _GRACE_S)
    if problem:
        raise RuntimeError(f"the generator ends because a part of it died: {problem}; see the log")
    _log.info("generator_drained")


async def watch(room: Room, ending: asyncio.Event) -> str:
    """Until told to end, or until a part has died: says which. Makes the room ready once its first version is live."""
    serving = False
    while not ending.is_set():
        if problem := room.problem():
            return problem
        room.note_load()
        if not serving and room.follower.caught_up:
            serving = True
            await room.server.set_serving(True)
            _log.info("generator_ready", version=room.engine.live_version)
        try:
            await asyncio.wait_for(ending.wait(), _WATCH_S)
        except TimeoutError:
            continue
    return ""
