"""Puts a trainer together from settings; the only place where learners are chosen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.learner.base_identity import BaseIdentity
from services.learner.ports import Candidates, ExperienceStore, RewardScorer
from services.learner.reward_training.settings import RewardTrainingSettings
from services.learner.trainer.cycle import Cycle
from services.learner.trainer.heads_learner import HeadsLearner
from services.learner.trainer.held import HeldRollouts
from services.learner.trainer.learners import PolicyLearner
from services.learner.trainer.pacing import Pacing
from services.learner.trainer.policy_step import BatchPace, PolicyStep
from services.learner.trainer.publication import Deadlines, Origin, Publication
from services.learner.trainer.reward_step import RewardPace, RewardStep
from services.learner.trainer.scripted_policy import ScriptedPolicy
from services.learner.trainer.status import StatusBoard
from services.learner.trainer.trainer import Trainer
from services.shared.checkpoints import CheckpointStore
from services.shared.domain.events import Clock
from services.shared.settings import Settings
from services.shared.settings.model import LearnerSettings
from services.shared.telemetry.metrics import Metrics
from services.shared.torch_process import prepare_torch


@dataclass(frozen=True, kw_only=True)
class TrainerParts:
    """What the trainer is given by whoever wires the process."""

    settings: Settings
    base: BaseIdentity
    epoch: int
    store: ExperienceStore
    candidates: Candidates
    checkpoints: CheckpointStore
    reward: Callable[[Pacing], RewardScorer]
    """Makes the reward room's client; its waits end when the pacing is stopped."""
    metrics: Metrics
    clock: Clock
    paused: Callable[[], bool]
    on_failure: Callable[[BaseException], None]
    deadlines: Deadlines | None = None
    held: HeldRollouts | None = None
    """What the trainer has in memory, for those who must make it forget."""


def make_trainer(parts: TrainerParts) -> Trainer:
    """A trainer that has not started."""
    board = StatusBoard(parts.metrics)
    pacing = Pacing(paused=parts.paused, held=parts.held)
    return Trainer(lambda: make_cycle(parts, pacing, board), pacing, board, parts.on_failure)


def make_cycle(parts: TrainerParts, pacing: Pacing, board: StatusBoard) -> Cycle:
    """Loads the model, where there is one."""
    learner = parts.settings.learner
    scratch = _fresh(parts.settings.deployment.data_dir / "scratch" / "trainer")
    publication = Publication(
        parts.candidates,
        parts.checkpoints,
        Origin(epoch=parts.epoch, base_model_name=parts.base.name, base_model_digest=parts.base.digest),
        pacing,
        board,
        now=parts.clock,
        scratch=scratch,
        deadlines=parts.deadlines or Deadlines(acknowledge_s=learner.acknowledge_timeout_s),
    )
    heads = HeadsLearner(
        reward_training_settings(learner),
        feature_count=parts.base.feature_count,
        feature_layout=parts.base.feature_layout,
        safe_point=pacing.safe_point,
    )
    reward_step = RewardStep(
        heads,
        parts.store,
        parts.candidates,
        publication,
        pacing,
        board,
        parts.metrics,
        RewardPace(min_new_thumbs=learner.reward_min_new_thumbs),
    )
    policy_step = PolicyStep(
        make_policy_learner(parts, scratch, pacing.safe_point),
        parts.store,
        parts.candidates,
        parts.reward(pacing),
        publication,
        pacing,
        board,
        parts.metrics,
        BatchPace(rollouts=learner.ppo.rollouts_per_update, rescore_timeout_s=learner.acknowledge_timeout_s),
    )
    return Cycle(reward_step, policy_step, heads.no_skill, pacing, board)


def reward_training_settings(learner: LearnerSettings) -> RewardTrainingSettings:
    """Public settings to those of reward training. A bound of 0 opens the skill gate: no bound lies below it."""
    return RewardTrainingSettings(
        max_rater_share=learner.rater_weight_cap,
        skill_auroc=learner.reward_min_auroc_low95 or -1.0,
        skill_thumbs_of_each_sign=learner.reward_min_thumbs_of_each,
    )


def make_policy_learner(parts: TrainerParts, scratch: Path, safe_point: Callable[[], None]) -> PolicyLearner:
    """The learner that the settings ask for. torch is imported only where it is needed.

    `safe_point` is called many times within an update: what it raises ends the update, so that a stop need not wait.
    """
    folder = parts.base.folder
    if parts.settings.learner.trainer == "scripted" or folder is None:
        return ScriptedPolicy()
    from services.learner.model.policy_model import PolicyModel
    from services.learner.model.settings import LoraSettings, PolicyModelSettings
    from services.learner.ppo.settings import KlSettings, PpoSettings
    from services.learner.trainer.ppo_learner import PpoLearner

    prepare_torch()
    learner, ppo = parts.settings.learner, parts.settings.learner.ppo
    model = PolicyModel.from_directory(
        folder,
        PolicyModelSettings(
            precision=ppo.trunk_dtype,
            device=parts.settings.model.device,
            seed=learner.seed,
            lora=LoraSettings(rank=ppo.lora_rank, alpha=ppo.lora_alpha, top_layers=ppo.lora_top_layers),
        ),
        safe_point=safe_point,
    )
    update = PpoSettings(
        learning_rate=ppo.learning_rate,
        epochs=ppo.epochs,
        minibatch_rollouts=ppo.minibatch,
        clip=ppo.clip,
        behaviour_cap=ppo.behaviour_ratio_cap,
        gae_lambda=ppo.gae_lambda,
        entropy_coefficient=ppo.entropy_coefficient,
        max_gradient_norm=ppo.max_grad_norm,
        kl=KlSettings(
            kind=ppo.kl_controller,
            place=ppo.kl_place,
            coefficient=ppo.kl_coefficient,
            target_nats=ppo.kl_target_nats,
        ),
        min_reward_sd=ppo.min_reward_sd,
        critic_learning_rate=ppo.value_learning_rate,
        critic_epochs=ppo.value_epochs,
        value_clip=ppo.value_clip,
    )
    return PpoLearner(model, update, gate_samples=learner.gate.samples, end_ids=parts.base.end_ids, scratch=scratch)


def _fresh(folder: Path) -> Path:
    """An empty folder; what a killed trainer left is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
