"""PPO as the cycle sees it: a policy model, its update rule, and everything both must remember."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.learner.model.adapter_format import load_adapter, save_adapter
from services.learner.model.policy_model import PolicyModel
from services.learner.model.training_state import load_training_state, save_training_state
from services.learner.ppo.batch import PpoBatch, TrainingRollout
from services.learner.ppo.settings import PpoSettings
from services.learner.ppo.update import PpoUpdate, UpdateReport
from services.learner.trainer.gate_samples import GateSampler, GateSampling, Prompt
from services.learner.trainer.learners import PolicyUpdate, ScoredExperience

STATE_FOLDER = "trainer"


class PpoLearner:
    """Holds one version of the policy, critic, optimizers, KL controller and random streams."""

    def __init__(
        self, model: PolicyModel, settings: PpoSettings, *, gate_samples: int, end_ids: frozenset[int], scratch: Path
    ) -> None:
        """`scratch`: a folder where release 0's state is kept; the next start empties it."""
        self._model = model
        self._settings = settings
        self._ppo = PpoUpdate(model, settings)
        self._sampler = GateSampler(model)
        self._gate_samples = gate_samples
        self._gate_prompts: dict[Prompt, str] = {}
        """Each with the rollout that brought it."""
        self._end_ids = end_ids
        self._release_zero = Path(tempfile.mkdtemp(dir=scratch, prefix="release-0-"))
        self.save(self._release_zero)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Hyper-parameters, of the adapter too."""
        lora = asdict(self._model.settings.lora)
        return {
            "algorithm": "ppo",
            **asdict(self._settings),
            "lora": {**lora, "targets": list(lora["targets"])},
            "precision": self._model.settings.precision,
            "seed": self._model.settings.seed,
        }

    def reset(self) -> None:
        """Becomes release 0."""
        self.restore(self._release_zero)

    def restore(self, folder: Path) -> None:
        """Goes on from a release, bit for bit."""
        load_adapter(self._model, folder)
        load_training_state(folder / STATE_FOLDER, self._ppo.training_state())

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Adapter and value head for whoever serves or trains, the rest below `trainer/`."""
        (folder / STATE_FOLDER).mkdir()
        state = save_training_state(folder / STATE_FOLDER, self._ppo.training_state())
        return {
            **{path.name: path for path in save_adapter(self._model, folder)},
            **{f"{STATE_FOLDER}/{path.name}": path for path in state},
        }

    def update(self, batch: Sequence[ScoredExperience]) -> PolicyUpdate:
        """One PPO update. Raises FloatingPointError where a gradient is not finite; the policy is then spoilt."""
        report = self._ppo.run(PpoBatch(rollouts=tuple(training_rollout(item) for item in batch)))
        return PolicyUpdate(skipped=report.skipped, metrics=_metrics(report))

    def measure(self, batch: Sequence[ScoredExperience]) -> Mapping[str, float]:
        """Answers to the gate's prompts, drawn as most of the batch was.

        The prompts are the first that batches brought, and stay: so the reference policy answers each only once.
        """
        for item in batch[: self._gate_samples]:
            rollout = item.experience.rollout
            if len(self._gate_prompts) < self._gate_samples:
                self._gate_prompts.setdefault(rollout.prompt_token_ids, rollout.rollout_id)
        lengths = [len(item.experience.rollout.response_token_ids) for item in batch]
        temperatures = [item.experience.rollout.sampling.temperature for item in batch]
        sampling = GateSampling(
            temperature=max(set(temperatures), key=temperatures.count),
            max_new_tokens=max(lengths),
            end_ids=self._end_ids,
        )
        return self._sampler.measure(list(self._gate_prompts), sampling)

    @property
    def kept_rollouts(self) -> frozenset[str]:
        """Those that brought the gate's prompts."""
        return frozenset(self._gate_prompts.values())

    def forget(self, rollout_ids: Collection[str]) -> None:
        """Other prompts take the place of theirs, and the reference policy answers all of them anew."""
        left = {prompt: name for prompt, name in self._gate_prompts.items() if name not in rollout_ids}
        if len(left) < len(self._gate_prompts):
            self._gate_prompts = left
            self._sampler.forget_reference()


def training_rollout(item: ScoredExperience) -> TrainingRollout:
    """An experience in the form that an update takes."""
    rollout = item.experience.rollout
    return TrainingRollout(
        rollout_id=rollout.rollout_id,
        prompt_ids=rollout.prompt_token_ids,
        response_ids=rollout.response_token_ids,
        temperature=rollout.sampling.temperature,
        behaviour_logprobs=rollout.behaviour_log_probs,
        reference_logprobs=item.experience.reference_log_probs,
        reward_terms=dict(item.terms),
    )


def _metrics(report: UpdateReport) -> dict[str, float]:
    """Names as in releases' tables; KL here is of the batch, under the policy before the update."""
    return {
        "kl_per_answer_batch": report.kl_per_answer,
        "kl_coefficient": report.kl_coefficient,
        "entropy": report.entropy_per_token,
        "explained_variance": report.explained_variance,
        "critic_used": float(report.critic_used),
        "policy_loss": report.policy_loss,
        "value_loss": report.value_loss,
        "clip_fraction": report.clipped_share,
        "cap_fraction": report.capped_share,
        "kl_moved": report.kl_moved,
        "gradient_norm": report.gradient_norm,
        "optimizer_steps": float(report.steps),
    }
