"""Wiring of the reward room, as a process: `run` blocks until SIGTERM or SIGINT, then drains.

Nothing here decides anything. The room is ready (health SERVING) once the live reward model is staged; a thread that
dies ends the process, so that whoever supervises it starts it again.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from thumbloop.reward.v1 import reward_pb2, reward_pb2_grpc

from services.reward.access import METHODS
from services.reward.base_model import BaseModel
from services.reward.consumer import RolloutConsumer
from services.reward.forgetting import RecordsInHand, RewardMemory
from services.reward.model_lane import ModelLane
from services.reward.resident_models import ResidentModels
from services.reward.score_events import RolloutScorer
from services.reward.scorer import Scorer
from services.reward.scripted_base import ScriptedBase
from services.reward.servicer import RewardServicer
from services.shared.access.room import RoomAccess, follow_access
from services.shared.access.service_credential import service_credential
from services.shared.bus import open_bus
from services.shared.bus.interface import Bus
from services.shared.checkpoints import CheckpointStore
from services.shared.checkpoints.models import resolve_model
from services.shared.contracts.topics import ROLLOUTS
from services.shared.domain.release import ReleaseKind
from services.shared.ids import new_id, utc_now
from services.shared.precision import resolve_precision
from services.shared.releases.acknowledger import ControlAcknowledger, ReleaseAcknowledger
from services.shared.releases.control_follower import ControlFollower
from services.shared.releases.follower import ReleaseFollower
from services.shared.releases.forget_orders import ForgottenRaters, forget_only
from services.shared.reward_heads.storage import ARRAYS_FILE, SETTINGS_FILE
from services.shared.rpc import RpcServer, open_sync_channel
from services.shared.settings import Settings
from services.shared.telemetry.log import configure, get_logger
from services.shared.telemetry.metrics import Metrics
from services.shared.torch_process import prepare_torch

_log = get_logger()
_WATCH_S = 0.2
_GRACE_S = 10.0


def run(settings: Settings) -> None:
    """Serves until it is told to end. Raises Misconfigured where it cannot start, RuntimeError where a thread died."""
    configure(settings.deployment, "reward")
    asyncio.run(_serve(settings))


@dataclass(kw_only=True)
class Room:
    """The parts that run."""

    server: RpcServer
    lane: ModelLane
    follower: ReleaseFollower
    acknowledger: ReleaseAcknowledger
    consumer: RolloutConsumer
    orders: ControlFollower
    order_acknowledger: ControlAcknowledger
    access: RoomAccess

    async def start(self) -> None:
        """Listens, not ready yet."""
        await self.server.start()
        self.access.follower.start()
        self.lane.start()
        self.acknowledger.start()
        self.order_acknowledger.start()
        self.follower.start()
        self.orders.start()
        self.consumer.start()

    async def drain(self) -> None:
        """Finishes the records in hand and the calls that run."""
        await self.server.set_serving(False)
        await asyncio.to_thread(self.consumer.drain, _GRACE_S)
        await self.server.drain(_GRACE_S)
        await asyncio.to_thread(self.follower.stop)
        await asyncio.to_thread(self.orders.stop)
        await asyncio.to_thread(self.acknowledger.stop)
        await asyncio.to_thread(self.order_acknowledger.stop)
        await asyncio.to_thread(self.access.follower.stop)
        await asyncio.to_thread(self.lane.stop, _GRACE_S)


def make_base(settings: Settings) -> BaseModel:
    """The base model that the settings ask for. torch is imported only where it is needed."""
    if settings.reward.scorer == "scripted":
        return ScriptedBase()
    from services.reward.base_pass import BasePass
    from services.shared.checkpoints import base_model_digest

    prepare_torch()
    folder = resolve_model(settings.model)
    return BasePass.from_directory(
        folder,
        dtype=resolve_precision(settings.reward.dtype, settings.model.device),
        device=settings.model.device,
        digest=base_model_digest(folder),
        max_batch=settings.reward.max_batch,
    )


def make_room(settings: Settings, base: BaseModel, bus: Bus, metrics: Metrics, learner: Any) -> Room:
    """Parts and their connections. `learner` is a blocking channel to the learner."""
    reward = settings.reward
    lane = ModelLane(base, max_batch=reward.max_batch)
    models = ResidentModels(feature_count=base.feature_count, capacity=reward.resident_versions)
    scorer = Scorer(models, feature_count=base.feature_count, spread_penalty=reward.spread_penalty)
    acknowledger = ReleaseAcknowledger(channel=learner, replica_id=reward.replica_id)
    follower = ReleaseFollower(
        kind=ReleaseKind.REWARD_MODEL,
        deployment=settings.deployment.name,
        open_reader=lambda: bus.log_reader(f"{reward.replica_id}-follower"),
        source=CheckpointStore(settings.checkpoints_url),
        target=models,
        acknowledge=acknowledger,
        staging_dir=settings.deployment.data_dir / "staging" / reward.replica_id,
        metrics=metrics,
        names=(ARRAYS_FILE, SETTINGS_FILE),
        base_model_digest=base.digest,
    )
    servicer = RewardServicer(base, lane, scorer, models, lambda: follower.status, metrics)
    forgotten = ForgottenRaters()
    in_hand = RecordsInHand(forgotten)
    order_acknowledger = ControlAcknowledger(channel=learner, replica_id=reward.replica_id)
    orders = ControlFollower(
        deployment=settings.deployment.name,
        open_reader=lambda: bus.log_reader(f"{reward.replica_id}-orders"),
        carry_out=forget_only(RewardMemory(forgotten=forgotten, in_hand=in_hand).forget),
        acknowledge=order_acknowledger,
        metrics=metrics,
    )
    consumer = RolloutConsumer(
        lambda: bus.group_reader(group="reward", member_id=reward.replica_id, topic=ROLLOUTS),
        bus.publisher(reward.replica_id),
        RolloutScorer(base, lane, scorer, max_batch=reward.max_batch, now=utc_now, new_id=new_id),
        deployment=settings.deployment.name,
        ready=lambda: bool(models.live_version),
        metrics=metrics,
        in_hand=in_hand,
    )
    access = follow_access(settings, replica_id=reward.replica_id, learner=learner)
    server = RpcServer(
        reward.host,
        reward.port,
        [lambda grpc_server: reward_pb2_grpc.add_RewardServiceServicer_to_server(servicer, grpc_server)],
        [reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name],
        guard=access.guard(METHODS),
    )
    return Room(
        server=server,
        lane=lane,
        follower=follower,
        acknowledger=acknowledger,
        consumer=consumer,
        orders=orders,
        order_acknowledger=order_acknowledger,
        access=access,
    )


async def _serve(settings: Settings) -> None:
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    with ExitStack() as stack:
        metrics = Metrics(room="reward")
        stack.enter_context(metrics.serve(settings.reward.host, settings.reward.metrics_port))
        bus = open_bus(settings.bus)
        stack.callback(bus.close)
        learner = open_sync_channel(settings.reward.learner_address, credential=service_credential(settings))
        stack.callback(learner.close)
        base = await asyncio.to_thread(make_base, settings)
        room = make_room(settings, base, bus, metrics, learner)
        await room.start()
        _log.info("reward_listens", port=room.server.port, scorer=settings.reward.scorer)
        failed: Sequence[str] = ()
        try:
            failed = await _watch(room, ending)
        finally:
            await room.drain()
        if failed:
            raise RuntimeError(f"the reward room ends because a part of it died: {', '.join(failed)}; see the log")
        _log.info("reward_drained")


async def _watch(room: Room, ending: asyncio.Event) -> list[str]:
    """Until told to end, or until a thread has died: gives the dead ones' names."""
    serving = False
    while not ending.is_set():
        dead = [name for name, part in (("consumer", room.consumer), ("model lane", room.lane)) if not part.running]
        if dead:
            return dead
        if not serving and room.follower.caught_up:
            serving = True
            await room.server.set_serving(True)
            _log.info("reward_ready")
        try:
            await asyncio.wait_for(ending.wait(), _WATCH_S)
        except TimeoutError:
            continue
    return []
