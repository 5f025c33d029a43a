"""One PPO update: from a batch of scored rollouts to a changed adapter and a report.

The order of things: freeze the proximal policy's log-probs, price the KL, estimate and whiten advantages over the whole
batch, take clipped steps over shuffled minibatches, fit the critic, tell the KL controller.

Shapes: `R` response tokens of the batch, rollout after rollout.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from services.learner.model.policy_model import PolicyModel, PreparedBatch, TokenOutputs
from services.learner.model.training_state import TrainingState
from services.learner.ppo.advantages import Advantages, estimate, explained_variance, whiten
from services.learner.ppo.batch import PpoBatch
from services.learner.ppo.clipped_loss import PolicyLoss, policy_loss
from services.learner.ppo.critic import Critic
from services.learner.ppo.kl_controller import make_kl_controller
from services.learner.ppo.rewards import TokenRewards, mean_terms, token_rewards
from services.learner.ppo.settings import PpoSettings
from services.learner.ppo.small_batches import CriticTrust, has_contrast


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """What an update met and did. Rewards are in thumb units, KL and entropy in nats."""

    rollouts: int
    skipped: str = ""
    """Why nothing was trained; empty where something was."""
    reward_mean: float
    reward_sd: float
    reward_terms: Mapping[str, float]
    kl_per_answer: float = 0.0
    """Mean over the answers of KL(proximal to reference), summed over the tokens: exact in each state where KL stands
    in the loss, else the sampled log-ratios."""
    kl_coefficient: float = 0.0
    entropy_per_token: float = 0.0
    explained_variance: float = 0.0
    critic_used: bool = False
    policy_loss: float = 0.0
    value_loss: float = 0.0
    clipped_share: float = 0.0
    capped_share: float = 0.0
    kl_moved: float = 0.0
    """KL per token between the policy before and after, as the last minibatch saw it."""
    gradient_norm: float = 0.0
    """Mean over the steps, before clipping."""
    steps: int = 0


@dataclass(kw_only=True)
class _Steps:
    """What the minibatch steps of one update add up to."""

    losses: list[PolicyLoss] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)


class PpoUpdate:
    """The PPO algorithm with all the state it keeps between updates."""

    def __init__(self, model: PolicyModel, settings: PpoSettings) -> None:
        self._model = model
        self._settings = settings
        self._parameters = list(model.adapter_parameters().values())
        self.optimizer = torch.optim.AdamW(self._parameters, lr=settings.learning_rate, weight_decay=0.0)
        self.critic = Critic(model.value_head, settings)
        self.kl_controller = make_kl_controller(settings.kl)
        self.critic_trust = CriticTrust(settings.critic_patience)

    def training_state(self) -> TrainingState:
        """What a release keeps besides the weights, ready for `save_training_state` and `load_training_state`."""
        return TrainingState(
            optimizers={"policy": self.optimizer, "critic": self.critic.optimizer},
            randomness=self._model.randomness,
            parts={"kl_controller": self.kl_controller, "critic_trust": self.critic_trust},
        )

    def run(self, batch: PpoBatch) -> UpdateReport:
        """Learn from a batch, once. Where nothing can be learned the report says why and the policy is untouched."""
        rewards = [rollout.reward for rollout in batch.rollouts]
        sd = statistics.pstdev(rewards)
        if not has_contrast(rewards, self._settings.min_reward_sd):
            return UpdateReport(
                rollouts=len(rewards),
                skipped=f"rewards differ too little: standard deviation {sd:.3f} < {self._settings.min_reward_sd}",
                reward_mean=statistics.fmean(rewards),
                reward_sd=sd,
                reward_terms=mean_terms(batch.rollouts),
            )
        prepared = self._model.prepare([rollout.sequence for rollout in batch.rollouts])
        in_loss = self._settings.kl.place == "loss"
        if in_loss:
            prepared = self._model.with_reference(prepared)
        proximal = self._model.evaluate_all(prepared)
        if in_loss:  # The exact KL of the policy as it stands is known before the price is asked.
            self.kl_controller.observe(float(proximal.kl_R.sum()) / len(rewards), len(rewards))
        coefficient = self.kl_controller.coefficient
        for group in self.optimizer.param_groups:
            group["lr"] = self._settings.learning_rate / self.kl_controller.pressure
        priced = token_rewards(proximal.logprobs_R, batch.rollouts, 0.0 if in_loss else coefficient)
        values_R = self.critic.values(proximal.critic_RC)
        advantages, explained, trusted = self._advantages(priced, values_R, proximal.lengths_B)
        whitened_R, unit = whiten(advantages.advantages_R, self._settings.advantage_floor)
        steps = self._descend(batch, prepared, proximal, whitened_R, coefficient / unit)
        value_loss = self.critic.fit(proximal.critic_RC, values_R, advantages.returns_R)
        kl = float(proximal.kl_R.sum()) / len(rewards) if in_loss else float(priced.kl_B.mean())
        if not in_loss:
            self.kl_controller.observe(kl, len(rewards))
        return UpdateReport(
            rollouts=len(rewards),
            reward_mean=statistics.fmean(rewards),
            reward_sd=sd,
            reward_terms=mean_terms(batch.rollouts),
            kl_per_answer=kl,
            kl_coefficient=coefficient,
            entropy_per_token=float(proximal.entropy_R.mean()),
            explained_variance=explained,
            critic_used=trusted,
            policy_loss=statistics.fmean(float(step.loss.detach()) for step in steps.losses),
            value_loss=value_loss,
            clipped_share=statistics.fmean(step.clipped_share for step in steps.losses),
            capped_share=statistics.fmean(step.capped_share for step in steps.losses),
            kl_moved=steps.losses[-1].kl_moved,
            gradient_norm=statistics.fmean(steps.gradient_norms),
            steps=len(steps.losses),
        )

    def _advantages(
        self, priced: TokenRewards, values_R: Tensor, lengths: tuple[int, ...]
    ) -> tuple[Advantages, float, bool]:
        """Advantages under the critic, or under the batch mean while the critic is not trusted."""
        settings = self._settings
        with_critic = estimate(priced.total_R, values_R, lengths, settings.gae_lambda)
        explained = explained_variance(values_R, with_critic.returns_R)
        if self.critic_trust.judge(explained):
            return with_critic, explained, True
        plain = estimate(priced.total_R, torch.zeros_like(values_R), lengths, 1.0)
        mean_R = plain.returns_R.mean().expand_as(values_R)
        return Advantages(advantages_R=plain.returns_R - mean_R, returns_R=plain.returns_R), explained, False

    def _descend(
        self,
        batch: PpoBatch,
        prepared: PreparedBatch,
        proximal: TokenOutputs,
        whitened_R: Tensor,
        kl_weight: float,
    ) -> _Steps:
        """Clipped policy steps over shuffled minibatches; `kl_weight` is in whitened units per nat."""
        lengths = list(proximal.lengths_B)
        behaviour_R = whitened_R.new_tensor([value for r in batch.rollouts for value in r.behaviour_logprobs])
        by_row = [torch.split(tensor, lengths) for tensor in (proximal.logprobs_R, behaviour_R, whitened_R)]
        steps = _Steps()
        for _ in range(self._settings.epochs):
            order = torch.randperm(len(lengths), generator=self._model.randomness.order).tolist()
            for start in range(0, len(order), self._settings.minibatch_rollouts):
                rows = order[start : start + self._settings.minibatch_rollouts]
                proximal_R, behaviour_M, advantages_R = (torch.cat([parts[row] for row in rows]) for parts in by_row)
                current = self._model.evaluate(prepared, rows, entropy=self._settings.entropy_coefficient > 0)
                outcome = policy_loss(
                    current.logprobs_R,
                    proximal_R,
                    behaviour_M,
                    advantages_R,
                    clip=self._settings.clip,
                    cap=self._settings.behaviour_cap,
                )
                loss = outcome.loss
                if prepared.reference_final_BRD:
                    loss = loss + kl_weight * current.kl_R.mean()
                if self._settings.entropy_coefficient > 0:
                    loss = loss - self._settings.entropy_coefficient * current.entropy_R.mean()
                self._step(loss, steps)
                steps.losses.append(outcome)
        return steps

    def _step(self, loss: Tensor, steps: _Steps) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.max_gradient_norm)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError("the gradient is not finite: lower the learning rate or use precision float32")
        self.optimizer.step()
        steps.gradient_norms.append(float(norm))
