"""Wiring of the learner, as a process: `run` blocks until SIGTERM or SIGINT, then drains.

Ingest, releaser and trainer are threads; gRPC runs on the event loop. Only those are built that `learner.roles` names:
a process that ingests alone needs no model and no lead, and answers over gRPC what the store knows. A role that ends by
itself (a bug, a log that was replaced, another leader) ends the process with a clear word, so that whoever supervises
it starts it again.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

from threadpoolctl import threadpool_limits
from thumbloop.learner.v1 import learner_pb2_grpc

from services.learner.access.key_table import ApiKeyTable
from services.learner.access.methods import METHODS
from services.learner.base_identity import base_identity
from services.learner.forgetting.forgetting import Forgetting
from services.learner.forgetting.replicas import Replicas
from services.learner.ingest.ingest import Ingest
from services.learner.releaser.leadership import Leadership
from services.learner.releaser.releaser import Releaser
from services.learner.roles import (
    Ground,
    State,
    make_ingest,
    make_learner_trainer,
    make_order_follower,
    make_releaser,
    make_state,
)
from services.learner.service.queries import LearnerQueries
from services.learner.service.servicer import SERVICE_NAME, LearnerServicer
from services.learner.state.acknowledgements import Acknowledgements
from services.learner.state.pausing import Pausing
from services.learner.trainer.held import HeldRollouts
from services.learner.trainer.post import NAME as POST
from services.learner.trainer.post import Post
from services.learner.trainer.status import Phase, TrainerStatus
from services.learner.trainer.trainer import Trainer
from services.shared.access.room import RoomAccess, own_access
from services.shared.bus import open_bus
from services.shared.bus.interface import Bus
from services.shared.checkpoints import CheckpointStore
from services.shared.contracts.topics import load_topic_pages
from services.shared.domain.errors import ThumbloopError, Unavailable
from services.shared.ids import new_id, utc_now
from services.shared.releases.control_follower import ControlFollower
from services.shared.rpc import RpcServer, open_sync_channel
from services.shared.settings import Settings
from services.shared.store.database import open_database
from services.shared.store.migrate import migrate
from services.shared.telemetry.log import configure, get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()
_LEADERSHIP_S = 120.0
_GRACE_S = 10.0
_RETRY_S = 1.0
_NO_TRAINER = TrainerStatus(
    phase=Phase.STOPPED, waiting_reason="this process does not train; ask one that has the role `trainer`"
)


def run(settings: Settings) -> None:
    """Learns until it is told to end. Raises ThumbloopError where it cannot start or a role ended by itself."""
    configure(settings.deployment, "learner")
    # Small products all over, for which more threads only spin. (torch has its own setting, in the trainer.)
    with threadpool_limits(1):
        asyncio.run(_serve(settings))


@dataclass(kw_only=True)
class Ending:
    """Why the process ends: it was told to (`failure` None), or a role failed."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    failure: BaseException | None = None
    role: str = ""


@dataclass(kw_only=True)
class Learner:
    """The parts that run."""

    server: RpcServer
    access: RoomAccess
    replicas: Replicas
    ingest: Ingest | None
    releaser: Releaser | None
    trainer: Trainer | None
    post: Post | None
    """With the trainer; kept since it was taken."""
    orders: ControlFollower | None
    """With trainer or releaser: whoever has something to forget."""

    async def start(self) -> None:
        """gRPC first, so that replicas can acknowledge what the releaser announces."""
        self.access.follower.start()
        self.replicas.start()
        await self.server.start()
        for role in (self.releaser, self.ingest, self.trainer, self.orders):
            if role is not None:
                role.start()
        await self.server.set_serving(True)

    async def drain(self) -> None:
        """The trainer gives up its step at a safe point, ingest commits its batch, the releaser ends its turn."""
        await self.server.set_serving(False)
        if self.trainer is not None and not await asyncio.to_thread(self.trainer.drain, _GRACE_S):
            _log.warning(
                "trainer_cut", note="its step took longer than the grace; its claims are void by the next epoch"
            )
        for role in (self.orders, self.post, self.ingest, self.releaser):
            if role is not None:
                await asyncio.to_thread(role.stop)
        await self.server.drain(_GRACE_S)
        await asyncio.to_thread(self.replicas.stop)
        await asyncio.to_thread(self.access.follower.stop)


async def _serve(settings: Settings) -> None:
    loop, ending = asyncio.get_running_loop(), Ending()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.asked.set)
    with ExitStack() as stack:
        metrics = Metrics(room="learner")
        stack.enter_context(metrics.serve(settings.learner.host, settings.learner.metrics_port))
        ground = await asyncio.to_thread(_ground, settings, metrics, stack)
        topics = asyncio.create_task(_ensure_topics(ground.bus))
        learner = await asyncio.to_thread(make_learner, ground, loop, ending, stack)
        await learner.start()
        roles = list(settings.learner.roles)
        _log.info("learner_listens", port=learner.server.port, roles=roles, trainer=settings.learner.trainer)
        try:
            await ending.asked.wait()
        finally:
            topics.cancel()
            await learner.drain()
    if ending.failure is not None:
        cause = ending.failure.message if isinstance(ending.failure, ThumbloopError) else repr(ending.failure)
        raise ThumbloopError(f"The learner ends because its {ending.role} did: {cause}", reason="ROLE_ENDED")
    _log.info("learner_drained")


def _ground(settings: Settings, metrics: Metrics, stack: ExitStack) -> Ground:
    """Opens store, bus and checkpoints; the store is brought to the newest schema."""
    settings.deployment.data_dir.mkdir(parents=True, exist_ok=True)
    database = open_database(settings.store_url)
    stack.callback(database.close)
    migrate(database)
    bus = open_bus(settings.bus)
    stack.callback(bus.close)
    return Ground(
        settings=settings,
        base=base_identity(settings) if set(settings.learner.roles) != {"ingest"} else None,
        database=database,
        bus=bus,
        checkpoints=CheckpointStore(settings.checkpoints_url),
        metrics=metrics,
        clock=utc_now,
        new_id=new_id,
    )


def make_learner(ground: Ground, loop: asyncio.AbstractEventLoop, ending: Ending, stack: ExitStack) -> Learner:
    """Takes (or follows) the lead where a role works under it, then builds the roles."""
    roles = ground.settings.learner.roles
    leadership = ground.leadership()
    epoch = _epoch(leadership, roles)
    keys = ApiKeyTable(ground.database, clock=ground.clock)
    access = own_access(ground.settings, keys.fetch)
    interval_s = ground.settings.access.snapshot_interval_s
    replicas = Replicas(ground.database, clock=ground.clock, interval_s=interval_s)

    def failed(role: str, error: BaseException) -> None:
        def note() -> None:
            if ending.failure is None:
                ending.failure, ending.role = error, role
            ending.asked.set()

        loop.call_soon_threadsafe(note)

    state = make_state(ground, epoch)
    trainer = post = orders = None
    held = HeldRollouts()
    if {"trainer", "releaser"} & set(roles):
        orders = make_order_follower(ground, held)
    if "trainer" in roles:
        # Another trainer's post may be waited for, and for longer than a lease lasts.
        with leadership.kept() if "releaser" in roles else nullcontext():
            post = _take_post(ground, lambda error: failed("trainer", error))
            reward_channel = open_sync_channel(ground.settings.learner.reward_address, credential=access.service)
            stack.callback(reward_channel.close)
            trainer = make_learner_trainer(ground, state, reward_channel, held, lambda error: failed("trainer", error))
    return Learner(
        server=_make_server(ground, state, trainer, keys, access, replicas),
        access=access,
        replicas=replicas,
        ingest=make_ingest(ground, lambda error: failed("ingest", error)) if "ingest" in roles else None,
        releaser=(
            make_releaser(ground, leadership, state, lambda error: failed("releaser", error))
            if "releaser" in roles
            else None
        ),
        trainer=trainer,
        post=post,
        orders=orders,
    )


def _epoch(leadership: Leadership, roles: Sequence[str]) -> int:
    """What this process's writes are fenced by; 0 where it writes nothing that the leader alone may write."""
    if "releaser" in roles:
        epoch = leadership.take(timeout_s=_LEADERSHIP_S)
        _log.info("leading", epoch=epoch)
        return epoch
    if "trainer" in roles:
        epoch = leadership.follow(timeout_s=_LEADERSHIP_S)
        _log.info("following", epoch=epoch)
        return epoch
    return 0


def _take_post(ground: Ground, on_failure: Callable[[BaseException], None]) -> Post:
    """The trainer's post, kept from now on."""
    place = ground.leadership(POST)
    place.take(timeout_s=_LEADERSHIP_S)
    post = Post(place, on_failure)
    post.start()
    return post


def _make_server(
    ground: Ground,
    state: State,
    trainer: Trainer | None,
    keys: ApiKeyTable,
    access: RoomAccess,
    replicas: Replicas,
) -> RpcServer:
    learner = ground.settings.learner
    servicer = LearnerServicer(
        queries=LearnerQueries(
            ground.database,
            clock=ground.clock,
            experiences=state.experiences,
            candidates=state.candidates,
            join_window_s=learner.join_window_s,
            orphan_after_s=learner.orphan_after_s,
        ),
        acknowledgements=Acknowledgements(ground.database, clock=ground.clock),
        pausing=Pausing(ground.database, clock=ground.clock),
        trainer_status=lambda: trainer.status if trainer is not None else _NO_TRAINER,
        read_manifest=lambda release: (
            ground.checkpoints.read_manifest(release.checkpoint_path, release.manifest_sha256).to_json().decode()
        ),
        epoch=state.epoch,
        forgetting=Forgetting(ground.database, clock=ground.clock, living=replicas.living),
        keys=keys,
        on_keys_changed=access.follower.look_now,
        on_replica=replicas.note,
    )
    return RpcServer(
        learner.host,
        learner.port,
        [lambda server: learner_pb2_grpc.add_LearnerServiceServicer_to_server(servicer, server)],
        [SERVICE_NAME],
        guard=access.guard(METHODS),
    )


async def _ensure_topics(bus: Bus) -> None:
    """Creates missing topics as soon as Kafka is there."""
    while True:
        try:
            await asyncio.to_thread(bus.ensure_topics, list(load_topic_pages().values()))
            return
        except Unavailable as error:
            _log.info("topics_wait", message=error.message)
            await asyncio.sleep(_RETRY_S)
