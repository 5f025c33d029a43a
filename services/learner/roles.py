"""The learner's roles, put together from settings: ingest, releaser, trainer. They share the store and one epoch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from services.learner.base_identity import BaseIdentity
from services.learner.forgetting.carrying_out import LEARNER, OrderWork
from services.learner.forgetting.dead_letters import DeadLetterEraser
from services.learner.forgetting.orders import OrderOutbox
from services.learner.ingest.feedback_gauges import FeedbackGauges
from services.learner.ingest.ingest import Ingest
from services.learner.ingest.offset_mirror import GROUP, OffsetMirror
from services.learner.ingest.reporting import Reporting
from services.learner.releaser.announcer import Announcer
from services.learner.releaser.first_releases import write_first_release
from services.learner.releaser.leadership import Leadership
from services.learner.releaser.outbox import Outbox
from services.learner.releaser.releaser import Releaser
from services.learner.state.acknowledgements import Acknowledgements
from services.learner.state.candidates import SqlCandidates
from services.learner.state.claims import SqlExperienceStore
from services.learner.state.features_retention import FeaturesRetention
from services.learner.state.fencing import LEADER
from services.learner.state.pausing import Pausing
from services.learner.state.release_commits import Origin, ReleaseCommits
from services.learner.state.rollouts_retention import RolloutsRetention
from services.learner.trainer.assembly import TrainerParts, make_trainer
from services.learner.trainer.held import HeldRollouts
from services.learner.trainer.reward_client import GrpcRewardScorer
from services.learner.trainer.trainer import Trainer
from services.shared.bus.interface import Bus
from services.shared.checkpoints import CheckpointStore
from services.shared.domain.events import Clock, NewId
from services.shared.domain.release import ReleaseKind
from services.shared.releases.control_follower import ControlFollower
from services.shared.releases.forget_orders import forget_only
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.storage import save_heads
from services.shared.settings import Settings
from services.shared.store.database import Database
from services.shared.telemetry.metrics import Metrics

OnFailure = Callable[[BaseException], None]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all roles stand on."""

    settings: Settings
    base: BaseIdentity | None
    """None: this process neither trains nor releases, and needs no model."""
    database: Database
    bus: Bus
    checkpoints: CheckpointStore
    metrics: Metrics
    clock: Clock
    new_id: NewId

    @property
    def base_model(self) -> BaseIdentity:
        """The base model of whoever trains or releases."""
        assert self.base is not None
        return self.base

    def leadership(self, name: str = LEADER) -> Leadership:
        """The leader's lease, or the one of this name; not taken yet."""
        learner = self.settings.learner
        return Leadership(
            self.database, clock=self.clock, holder=learner.instance_id, ttl_s=learner.lease_ttl_s, name=name
        )


@dataclass(frozen=True, kw_only=True)
class State:
    """The store as an epoch may use it."""

    epoch: int
    experiences: SqlExperienceStore
    candidates: SqlCandidates


def make_state(ground: Ground, epoch: int) -> State:
    """Writes through it are fenced by the epoch; under epoch 0, which nobody has, it can only be read."""
    learner = ground.settings.learner
    return State(
        epoch=epoch,
        experiences=SqlExperienceStore(
            ground.database,
            clock=ground.clock,
            epoch=epoch,
            max_staleness=learner.max_staleness,
            unrated_wait_s=learner.unrated_wait_s,
            join_window_s=learner.join_window_s,
            claim_lease_s=learner.claim_lease_s,
        ),
        candidates=SqlCandidates(ground.database, clock=ground.clock, epoch=epoch),
    )


def make_ingest(ground: Ground, on_failure: OnFailure) -> Ingest:
    """Kafka to store. Needs no leadership: its partitions have leases of their own."""
    settings, learner = ground.settings, ground.settings.learner
    feedback = FeedbackGauges(
        ground.database,
        ground.metrics,
        clock=ground.clock,
        join_window_s=learner.join_window_s,
        orphan_after_s=learner.orphan_after_s,
    )
    mirror = OffsetMirror(ground.bus.group_offsets(GROUP))
    return Ingest(
        bus=ground.bus,
        database=ground.database,
        deployment=settings.deployment.name,
        clock=ground.clock,
        holder=learner.instance_id,
        lease_ttl_s=learner.lease_ttl_s,
        embedded=settings.bus.embedded,
        on_failure=on_failure,
        max_dead_letter_share=learner.dead_letter_max_share,
        reporting=Reporting(ground.metrics, clock=ground.clock, feedback=feedback, mirror=mirror),
    )


def make_releaser(ground: Ground, leadership: Leadership, state: State, on_failure: OnFailure) -> Releaser:
    """Judges, commits, announces, under the epoch that `leadership` has taken."""
    settings, epoch = ground.settings, state.epoch
    publisher = ground.bus.publisher("learner-releaser")
    origin = Origin(
        deployment=settings.deployment.name,
        tenant=settings.deployment.tenant,
        clock=ground.clock,
        new_id=ground.new_id,
    )
    return Releaser(
        leadership=leadership,
        candidates=state.candidates,
        commits=ReleaseCommits(ground.database, origin=origin, epoch=epoch),
        outbox=Outbox(ground.database, publisher, clock=ground.clock, epoch=epoch),
        announcer=Announcer(
            ground.database,
            publisher,
            clock=ground.clock,
            new_id=ground.new_id,
            interval_s=settings.learner.announce_interval_s,
        ),
        orders=OrderOutbox(
            ground.database, publisher, deployment=settings.deployment.name, clock=ground.clock, epoch=epoch
        ),
        retention=(
            FeaturesRetention(
                ground.database, clock=ground.clock, epoch=epoch, keep_s=settings.learner.features_retention_s
            ),
            RolloutsRetention(
                ground.database, clock=ground.clock, epoch=epoch, keep_s=settings.learner.rollouts_retention_s
            ),
        ),
        gate=settings.learner.gate,
        first_releases={kind: partial(_first_release, ground, kind) for kind in ReleaseKind},
        on_failure=on_failure,
    )


def make_learner_trainer(
    ground: Ground, state: State, reward_channel: Any, held: HeldRollouts, on_failure: OnFailure
) -> Trainer:
    """The trainer of an epoch, not started. `held`: what it has in memory."""
    pausing = Pausing(ground.database, clock=ground.clock)
    return make_trainer(
        TrainerParts(
            settings=ground.settings,
            base=ground.base_model,
            epoch=state.epoch,
            store=state.experiences,
            candidates=state.candidates,
            checkpoints=ground.checkpoints,
            reward=lambda pacing: GrpcRewardScorer(reward_channel, sleep=pacing.sleep),
            metrics=ground.metrics,
            clock=ground.clock,
            paused=lambda: pausing.paused,
            on_failure=on_failure,
            held=held,
        )
    )


def make_order_follower(ground: Ground, held: HeldRollouts) -> ControlFollower:
    """The learner's own share of orders. The process that releases sees to the dead letters, and is *the* learner to
    those who wait; one that trains apart answers for its own memory, under its own name.
    """
    settings, releases = ground.settings, "releaser" in ground.settings.learner.roles
    consumer = LEARNER if releases else settings.learner.instance_id
    eraser = DeadLetterEraser(ground.bus, ground.bus.publisher("learner-orders")) if releases else None
    work = OrderWork(
        ground.database,
        Acknowledgements(ground.database, clock=ground.clock),
        consumer=consumer,
        abandon=held.abandon,
        eraser=eraser,
    )
    return ControlFollower(
        deployment=settings.deployment.name,
        open_reader=lambda: ground.bus.log_reader("learner-orders"),
        carry_out=forget_only(lambda control_id, _, order: work.forget(control_id, order)),
        acknowledge=lambda _: None,  # part of the work, so that it is tried again with it
        metrics=ground.metrics,
    )


def _first_release(ground: Ground, kind: ReleaseKind, epoch: int) -> Any:
    """The base policy as it is, or a reward model that knows nothing."""
    files: dict[str, Path | bytes] = {}
    if kind is ReleaseKind.REWARD_MODEL:
        with tempfile.TemporaryDirectory() as folder:
            for path in save_heads(RewardHeads.zero(ground.base_model.feature_count), Path(folder)):
                files[path.name] = path.read_bytes()
    return write_first_release(
        ground.checkpoints,
        kind,
        files,
        epoch=epoch,
        base_model_name=ground.base_model.name,
        base_model_digest=ground.base_model.digest,
        clock=ground.clock,
    )
