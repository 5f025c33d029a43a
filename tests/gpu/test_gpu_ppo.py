"""PPO on the device beside PPO on the CPU: same seed, same experience, float32.

Tolerances are float32's: sums are taken in another order, and Adam turns the rounding of a gradient near zero into a
step of visible size, so updates are compared by their distance over their length, not number by number.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from services.learner.ppo.advantages import estimate, whiten
from services.learner.ppo.rewards import token_rewards
from services.learner.ppo.settings import KlSettings, PpoSettings
from services.learner.ppo.update import PpoUpdate
from services.learner.trainer.gate_samples import GateSampler, GateSampling
from tests.gpu.policies import (
    adapter_of,
    assert_updates_agree,
    distance,
    make_batch,
    make_policy,
    sequences,
    weights_of,
)

BATCH = make_batch()
IN_LOSS = PpoSettings(epochs=2, minibatch_rollouts=6)
IN_REWARD = PpoSettings(epochs=2, minibatch_rollouts=6, entropy_coefficient=0.01, kl=KlSettings(place="reward"))
UPDATES = 3


def test_the_same_seed_makes_the_same_policy(device: str) -> None:
    assert torch.equal(weights_of(make_policy("cpu", moved=False)), weights_of(make_policy(device, moved=False)))
    assert make_policy(device).value_head.linear.weight.device.type == torch.device(device).type


def test_log_probs_kl_entropy_and_critic_inputs_agree(device: str) -> None:
    here, there = (
        policy.evaluate_all(policy.with_reference(policy.prepare(sequences())))
        for policy in (make_policy("cpu"), make_policy(device))
    )
    for name in ("logprobs_R", "kl_R", "entropy_R", "critic_RC"):
        ours, theirs = getattr(here, name), getattr(there, name)
        assert theirs.device.type == torch.device(device).type
        torch.testing.assert_close(theirs.cpu(), ours, atol=1e-4, rtol=1e-4)


def test_rewards_and_advantages_agree(device: str) -> None:
    outcomes = []
    for policy in (make_policy("cpu"), make_policy(device)):
        proximal = policy.evaluate_all(policy.prepare(sequences()))
        priced = token_rewards(proximal.logprobs_R, BATCH.rollouts, 0.1)
        values_R = torch.linspace(-1, 1, len(priced.total_R), device=priced.total_R.device)
        advantages = estimate(priced.total_R, values_R, proximal.lengths_B, 0.95)
        whitened_R, _ = whiten(advantages.advantages_R, 0.3)
        outcomes.append((priced.total_R, priced.kl_B, advantages.returns_R, whitened_R))
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [IN_LOSS, IN_REWARD], ids=["kl in the loss", "kl in the reward"])
def test_updates_agree_with_the_cpu(device: str, settings: PpoSettings) -> None:
    policies = [make_policy("cpu"), make_policy(device)]
    updates = [PpoUpdate(policy, settings) for policy in policies]
    before = adapter_of(policies[0])
    for _ in range(UPDATES):
        assert_updates_agree(*(update.run(BATCH) for update in updates))
    apart = distance(adapter_of(policies[0]), adapter_of(policies[1]), before)
    print(f"three updates end apart by {apart:.2g} of their length")
    assert apart < 0.01


def test_bfloat16_learns_and_stays_finite(device: str) -> None:
    policy = make_policy(device, "bfloat16")
    update = PpoUpdate(policy, IN_LOSS)
    before = weights_of(policy)
    for _ in range(UPDATES):
        report = update.run(BATCH)
        numbers = [value for value in asdict(report).values() if isinstance(value, float)]
        assert not report.skipped and torch.isfinite(torch.tensor(numbers)).all()
    after = weights_of(policy)
    assert torch.isfinite(after).all() and not torch.equal(before, after)
    assert all(parameter.dtype == torch.float32 for parameter in policy.adapter_parameters().values())


def test_answers_for_the_gate_are_drawn_and_measured(device: str) -> None:
    """The same seed draws the same numbers on every device: rounding can turn a token at an edge, no more."""
    prompts = [sequence.prompt_ids for sequence in sequences()]
    sampling = GateSampling(temperature=0.8, max_new_tokens=12, end_ids=frozenset({2}))
    here, there = (GateSampler(make_policy(place)).measure(prompts, sampling) for place in ("cpu", device))
    assert there["finite"] == 1.0
    for name, value in here.items():
        assert there[name] == pytest.approx(value, rel=0.05), name
