"""The learner's roles, put together from settings: ingest, releaser, trainer. They share the store and one epoch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from services.learner.base_identity import BaseIdentity
from services.learner.ingest.ingest import Ingest
from services.learner.releaser.announcer import Announcer
from services.learner.releaser.first_releases import write_first_release
from services.learner.releaser.leadership import Leadership
from services.learner.releaser.outbox import Outbox
from services.learner.releaser.releaser import Releaser
from services.learner.state.candidates import SqlCandidates
from services.learner.state.claims import SqlExperienceStore
from services.learner.state.pausing import Pausing
from services.learner.state.release_commits import Origin, ReleaseCommits
from services.learner.trainer.assembly import TrainerParts, make_trainer
from services.learner.trainer.reward_client import GrpcRewardScorer
from services.learner.trainer.trainer import Trainer
from services.shared.bus.interface import Bus
from services.shared.checkpoints import CheckpointStore
from services.shared.domain.events import Clock, NewId
from services.shared.domain.release import ReleaseKind
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.storage import save_heads
from services.shared.settings import Settings
from services.shared.store.database import Database
from services.shared.telemetry.metrics import Metrics

INGEST_HOLDER = "ingest-0"
LEADER_HOLDER = "learner-0"
OnFailure = Callable[[BaseException], None]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all roles stand on."""

    settings: Settings
    base: BaseIdentity
    database: Database
    bus: Bus
    checkpoints: CheckpointStore
    metrics: Metrics
    clock: Clock
    new_id: NewId

    def leadership(self) -> Leadership:
        """The leader's lease, not taken yet."""
        return Leadership(
            self.database, clock=self.clock, holder=LEADER_HOLDER, ttl_s=self.settings.learner.lease_ttl_s
        )


@dataclass(frozen=True, kw_only=True)
class State:
    """The store as an epoch may use it."""

    epoch: int
    experiences: SqlExperienceStore
    candidates: SqlCandidates


def make_state(ground: Ground, epoch: int) -> State:
    """Writes through it are fenced by the epoch."""
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
    settings = ground.settings
    return Ingest(
        bus=ground.bus,
        database=ground.database,
        deployment=settings.deployment.name,
        clock=ground.clock,
        holder=INGEST_HOLDER,
        lease_ttl_s=settings.learner.lease_ttl_s,
        embedded=settings.bus.embedded,
        on_failure=on_failure,
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
        gate=settings.learner.gate,
        first_releases={kind: partial(_first_release, ground, kind) for kind in ReleaseKind},
        on_failure=on_failure,
    )


def make_learner_trainer(ground: Ground, state: State, reward_channel: Any, on_failure: OnFailure) -> Trainer:
    """The trainer of an epoch, not started."""
    pausing = Pausing(ground.database, clock=ground.clock)
    return make_trainer(
        TrainerParts(
            settings=ground.settings,
            base=ground.base,
            epoch=state.epoch,
            store=state.experiences,
            candidates=state.candidates,
            checkpoints=ground.checkpoints,
            reward=lambda pacing: GrpcRewardScorer(reward_channel, sleep=pacing.sleep),
            metrics=ground.metrics,
            clock=ground.clock,
            paused=lambda: pausing.paused,
            on_failure=on_failure,
        )
    )


def _first_release(ground: Ground, kind: ReleaseKind, epoch: int) -> Any:
    """The base policy as it is, or a reward model that knows nothing."""
    files: dict[str, Path | bytes] = {}
    if kind is ReleaseKind.REWARD_MODEL:
        with tempfile.TemporaryDirectory() as folder:
            for path in save_heads(RewardHeads.zero(ground.base.feature_count), Path(folder)):
                files[path.name] = path.read_bytes()
    return write_first_release(
        ground.checkpoints,
        kind,
        files,
        epoch=epoch,
        base_model_name=ground.base.name,
        base_model_digest=ground.base.digest,
        clock=ground.clock,
    )
