"""The small model and rollouts that the tests of this folder share."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from services.learner.model.packing import TokenSequence
from services.learner.model.policy_model import PolicyModel
from services.learner.model.settings import LoraSettings, PolicyModelSettings
from services.learner.ppo.batch import PpoBatch, TrainingRollout

CONFIG = LlamaConfig(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=True,
)

SEQUENCES = (
    TokenSequence(prompt_ids=(1, 5, 9, 20), response_ids=(7, 8, 9), temperature=0.8),
    TokenSequence(prompt_ids=(1, 5, 9, 33, 34, 35), response_ids=(40,), temperature=1.0),
    TokenSequence(prompt_ids=(1, 5, 9, 50, 51), response_ids=(60, 61, 62, 63, 2), temperature=0.5),
    TokenSequence(prompt_ids=(1, 5, 9, 20), response_ids=(11, 12), temperature=1.2),
)


def tiny_base() -> LlamaForCausalLM:
    """An untrained base model, the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return LlamaForCausalLM(CONFIG)


def tiny_policy(seed: int = 3) -> PolicyModel:
    """A policy on the tiny base whose adapter changes nothing yet."""
    settings = PolicyModelSettings(
        precision="float32", seed=seed, pack_tokens=24, lora=LoraSettings(rank=4, alpha=8.0, top_layers=2)
    )
    return PolicyModel(tiny_base(), settings)


def tiny_batch(model: PolicyModel, rewards: tuple[float, ...] = (0.8, -0.8, 0.4, -0.2)) -> PpoBatch:
    """On-policy rollouts of the tiny model with these rewards, one for each of `SEQUENCES`."""
    prepared = model.prepare(SEQUENCES)
    behaviour = model.evaluate_all(prepared)
    reference = model.evaluate_all(prepared, reference=True)
    lengths = list(behaviour.lengths_B)
    pairs = zip(torch.split(behaviour.logprobs_R, lengths), torch.split(reference.logprobs_R, lengths), strict=True)
    return PpoBatch(
        rollouts=tuple(
            TrainingRollout(
                rollout_id=f"rollout-{index}",
                prompt_ids=SEQUENCES[index].prompt_ids,
                response_ids=SEQUENCES[index].response_ids,
                temperature=SEQUENCES[index].temperature,
                behaviour_logprobs=tuple(ours.tolist()),
                reference_logprobs=tuple(theirs.tolist()),
                reward_terms={"thumb": rewards[index]},
            )
            for index, (ours, theirs) in enumerate(pairs)
        )
    )
