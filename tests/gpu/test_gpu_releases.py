"""What one device has written, another reads: a learner's release and its training state, and the generator's part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from services.generator.engines.continuous_batching import ContinuousBatchingEngine
from services.generator.engines.interface import EngineRequest, EngineToken
from services.learner.model.policy_model import PolicyModel
from services.learner.model.settings import LoraSettings, PolicyModelSettings
from services.learner.ppo.settings import KlSettings, PpoSettings
from services.learner.trainer.ppo_learner import PpoLearner
from services.shared.domain.rollout import Sampling
from services.shared.ids import utc_now
from tests.gpu.policies import adapter_of, assert_updates_agree, distance, make_batch, make_policy, weights_of
from tests.support.tiny_model import build_tiny_model

BATCH = make_batch()
SETTINGS = PpoSettings(epochs=2, minibatch_rollouts=6, kl=KlSettings(kind="adaptive"))


def learner_of(policy: PolicyModel, scratch: Path) -> PpoLearner:
    scratch.mkdir(parents=True, exist_ok=True)
    return PpoLearner(policy, SETTINGS, gate_samples=4, end_ids=frozenset({2}), scratch=scratch)


def save(learner: PpoLearner, folder: Path) -> None:
    folder.mkdir()
    learner.save(folder)


@pytest.mark.parametrize("way", ["device to cpu", "cpu to device", "device to device"])
def test_a_learner_goes_on_from_another_device_s_release(device: str, way: str, tmp_path: Path) -> None:
    """Update, save, restore there, update on both: the weights are equal after loading and agree after the update."""
    source, target = (device if end == "device" else "cpu" for end in way.split(" to "))
    policies = [make_policy(source), make_policy(target, moved=False)]
    learners = [learner_of(policy, tmp_path / f"scratch{n}") for n, policy in enumerate(policies)]
    learners[0]._ppo.run(BATCH)
    save(learners[0], tmp_path / "release")
    learners[1].restore(tmp_path / "release")
    assert torch.equal(weights_of(policies[0]), weights_of(policies[1]))
    resumed = adapter_of(policies[0])
    assert_updates_agree(*(learner._ppo.run(BATCH) for learner in learners))
    apart = distance(adapter_of(policies[0]), adapter_of(policies[1]), resumed)
    print(f"{way}: the next updates end apart by {apart:.2g} of their length")
    assert apart < 0.01


def test_release_zero_comes_back(device: str, tmp_path: Path) -> None:
    policy = make_policy(device)
    learner = learner_of(policy, tmp_path)
    before = weights_of(policy)
    learner._ppo.run(BATCH)
    assert not torch.equal(before, weights_of(policy))
    learner.reset()
    assert torch.equal(before, weights_of(policy))


async def test_the_generator_draws_by_the_release_that_the_learner_wrote(device: str, tmp_path: Path) -> None:
    """Learner and generator on the device, the release between them: log-probs of one are those of the other."""
    model_dir = build_tiny_model(tmp_path / "model", hidden=64, layers=6)
    lora = LoraSettings(rank=4, alpha=8.0, top_layers=3)
    settings = PolicyModelSettings(precision="float32", device=device, seed=1, lora=lora)
    policy = PolicyModel(AutoModelForCausalLM.from_pretrained(model_dir), settings)
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.adapter_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise).to(parameter.device))
    save(learner_of(policy, tmp_path / "scratch"), tmp_path / "release")

    engine = ContinuousBatchingEngine(model_dir=model_dir, clock=utc_now, device=device, context_tokens=128)
    await engine.start()
    try:
        engine.stage("learned", tmp_path / "release")
        engine.flip("learned")
        prompt = tuple(range(10, 30))
        sampling = Sampling(temperature=0.9, max_tokens=30, seed=1)
        events = engine.submit(EngineRequest(request_id="r", prompt_token_ids=prompt, sampling=sampling))
        drawn = [event async for event in events if isinstance(event, EngineToken)]
    finally:
        await engine.stop()
    ids = tuple(token.token_id for token in drawn)
    with torch.no_grad():
        logits_TV = policy.network(torch.tensor([[*prompt, *ids]], device=device)).logits[0, len(prompt) - 1 : -1]
    expected = (logits_TV / 0.9).log_softmax(dim=-1).cpu().gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    assert [token.log_prob for token in drawn] == pytest.approx(expected, abs=1e-3)
