"""A policy on any device and a batch of rollouts for it, both the same whatever the device."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from services.learner.model.packing import TokenSequence
from services.learner.model.policy_model import PolicyModel
from services.learner.model.settings import LoraSettings, PolicyModelSettings, TrunkPrecision
from services.learner.ppo.batch import PpoBatch, TrainingRollout
from services.learner.ppo.update import UpdateReport

VOCABULARY = 512
ROLLOUTS = 24
PREFIX = (1, 5, 9, 20, 21, 22)


def make_policy(device: str, precision: TrunkPrecision = "float32", *, moved: bool = True) -> PolicyModel:
    """`moved`: its adapter already changes something."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        base = LlamaForCausalLM(config)
    lora = LoraSettings(rank=4, alpha=8.0, top_layers=3)
    policy = PolicyModel(
        base, PolicyModelSettings(precision=precision, device=device, seed=3, pack_tokens=256, lora=lora)
    )
    if moved:
        noise = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in policy.adapter_parameters().values():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise).to(parameter.device))
    return policy


def sequences() -> tuple[TokenSequence, ...]:
    """Prompts that begin alike, answers of 3 to 34 tokens."""
    random = torch.Generator().manual_seed(7)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=random).tolist())

    return tuple(
        TokenSequence(
            prompt_ids=(*PREFIX, *tokens(2 + index % 9)),
            response_ids=tokens(3 + (5 * index) % 32),
            temperature=(0.6, 0.8, 1.0)[index % 3],
        )
        for index in range(ROLLOUTS)
    )


def make_batch() -> PpoBatch:
    """Rollouts that an older policy than `make_policy`'s drew, priced on the CPU."""
    older = make_policy("cpu", moved=False)
    prepared = older.prepare(sequences())
    reference = older.evaluate_all(prepared, reference=True)
    lengths = list(reference.lengths_B)
    noise = torch.Generator().manual_seed(13)
    behaviour_R = reference.logprobs_R + 0.05 * torch.randn(reference.logprobs_R.shape, generator=noise)
    parts = zip(sequences(), torch.split(behaviour_R, lengths), torch.split(reference.logprobs_R, lengths), strict=True)
    return PpoBatch(
        rollouts=tuple(
            TrainingRollout(
                rollout_id=f"r{index}",
                prompt_ids=sequence.prompt_ids,
                response_ids=sequence.response_ids,
                temperature=sequence.temperature,
                behaviour_logprobs=tuple(behaviour_T.tolist()),
                reference_logprobs=tuple(reference_T.tolist()),
                reward_terms={"thumb": (0.8, -0.6, 0.3, -0.9, 0.5)[index % 5]},
            )
            for index, (sequence, behaviour_T, reference_T) in enumerate(parts)
        )
    )


def weights_of(policy: PolicyModel) -> torch.Tensor:
    """Adapter and critic in one row, on the CPU."""
    parts = [*policy.adapter_parameters().values(), *policy.value_head.state_dict().values()]
    return torch.cat([part.detach().float().cpu().flatten() for part in parts])


def adapter_of(policy: PolicyModel) -> torch.Tensor:
    """The adapter alone, in one row, on the CPU: what the policy's steps move."""
    return torch.cat([part.detach().cpu().flatten() for part in policy.adapter_parameters().values()])


def assert_updates_agree(ours: UpdateReport, theirs: UpdateReport) -> None:
    """Every loss, KL and share, as far as float32 carries over several steps."""
    assert not ours.skipped and not theirs.skipped
    expected, found = asdict(ours), asdict(theirs)
    for name in expected.keys() - {"skipped"}:
        assert found[name] == pytest.approx(expected[name], abs=2e-3, rel=2e-3), name


def distance(one: torch.Tensor, other: torch.Tensor, before: torch.Tensor) -> float:
    """How far apart two updates of the same adapter ended, as a share of the first one's length."""
    return float((other - one).norm() / (one - before).norm())
