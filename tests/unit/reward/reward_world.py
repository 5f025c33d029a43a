"""A reward room in one process: scripted base, resident heads, bus in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np

from services.reward.base_model import Answer, BaseModel, PassResult
from services.reward.consumer import ConsumerPace, RolloutConsumer
from services.reward.forgetting import RecordsInHand
from services.reward.model_lane import ModelLane
from services.reward.resident_models import ResidentModels
from services.reward.score_events import RolloutScorer
from services.reward.scorer import Scorer
from services.reward.scripted_base import ScriptedBase
from services.shared.bus.interface import OutgoingEvent, Record
from services.shared.bus.memory import MemoryBus
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.scores import decode_score
from services.shared.contracts.topics import ROLLOUTS, SCORES, load_topic_pages
from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import Rollout
from services.shared.domain.score import Score
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.storage import save_heads
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import DEPLOYMENT, at, make_announcement, reward_version
from tests.support.patience import eventually


def heads_that_like(feature: int, features: int) -> RewardHeads:
    """All heads like the same feature."""
    heads = RewardHeads.zero(features)
    weights = heads.weights_HF.copy()
    weights[:, feature] = 4.0
    return RewardHeads(weights_HF=weights, bias_H=heads.bias_H, mean_F=heads.mean_F, scale_F=heads.scale_F)


def stage(models: ResidentModels, heads: RewardHeads, folder: Path, *, number: int = 0, live: bool = True) -> str:
    """Puts a version where releases would put it; gives its id."""
    version = reward_version(number)
    here = folder / version
    here.mkdir(parents=True, exist_ok=True)
    save_heads(heads, here)
    announcement = make_announcement(version, kind=ReleaseKind.REWARD_MODEL)
    models.stage(announcement, here)
    if live:
        models.flip(announcement)
    return version


class CountingBase(ScriptedBase):
    """Remembers the sizes of its passes; may be told to fail."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.failure: Exception | None = None

    def run(self, answers: Sequence[Answer]) -> list[PassResult]:
        self.passes.append(len(answers))
        if self.failure is not None:
            raise self.failure
        return super().run(answers)


@dataclass(kw_only=True)
class RewardWorld:
    """Everything but the gRPC edge."""

    folder: Path
    base: BaseModel = field(default_factory=CountingBase)
    bus: MemoryBus = field(default_factory=MemoryBus)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.bus.ensure_topics(load_topic_pages().values())
        self.lane = ModelLane(self.base, max_batch=16)
        self.models = ResidentModels(feature_count=self.base.feature_count, capacity=3)
        self.scorer = Scorer(self.models, feature_count=self.base.feature_count, spread_penalty=0.5)
        ids = count(1)
        self.rollouts = RolloutScorer(
            self.base, self.lane, self.scorer, max_batch=16, now=lambda: at(100), new_id=lambda: f"score-{next(ids)}"
        )
        self.forgotten = ForgottenRaters()
        self.consumer = RolloutConsumer(
            lambda: self.bus.group_reader(group="reward", member_id="reward-0", topic=ROLLOUTS),
            self.bus.publisher("reward-0"),
            self.rollouts,
            deployment=DEPLOYMENT,
            ready=lambda: bool(self.models.live_version),
            metrics=self.metrics,
            in_hand=RecordsInHand(self.forgotten),
            pace=ConsumerPace(poll_s=0.02, retry_s=0.02, pass_s=5.0, acknowledge_s=1.0),
        )
        self.lane.start()

    def go_live(self, number: int = 0, heads: RewardHeads | None = None) -> str:
        return stage(self.models, heads or RewardHeads.zero(self.base.feature_count), self.folder, number=number)

    def send(self, *rollouts: Rollout, headers: Mapping[str, bytes] | None = None) -> None:
        for rollout in rollouts:
            self.bus.append(
                OutgoingEvent(
                    topic=ROLLOUTS, key=rollout.rollout_id, value=encode_rollout(rollout), headers=headers or {}
                )
            )

    def scores(self) -> list[Score]:
        return [decode_score(value) for value in self.values(SCORES)]

    def await_scores(self, number: int) -> list[Score]:
        eventually(lambda: len(self.scores()) >= number, what=f"{number} scores")
        return self.scores()

    def records(self, topic: str) -> list[Record]:
        return [record for place, log in self.bus.logs.items() if place.topic == topic for record in log.records]

    def values(self, topic: str) -> list[bytes]:
        return [record.value for record in self.records(topic)]

    def committed(self) -> int:
        return sum(offset for (group, _), offset in self.bus.committed.items() if group == "reward")

    def stop(self) -> None:
        self.consumer.drain(5.0)
        self.lane.stop(5.0)


def features_of(*values: float) -> bytes:
    return np.array(values, dtype="<f2").tobytes()
