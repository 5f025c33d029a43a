"""What the gate is told of a candidate, on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.learner.model.policy_model import PolicyModel
from services.learner.model.sampling import SampledAnswer, sample_answers
from services.learner.model.settings import PolicyModelSettings
from services.learner.trainer import gate_samples
from services.learner.trainer.gate_samples import GateSampler, GateSampling, distinct2
from services.learner.trainer.pacing import Stopped
from tests.support.tiny_model import build_tiny_model

PROMPTS = [(1, 20, 30), (1, 20, 31, 32), (1, 20, 33, 34, 35), (1, 20, 36)]
SAMPLING = GateSampling(temperature=0.8, max_new_tokens=6, end_ids=frozenset({2}))


@pytest.fixture
def model(tmp_path: Path) -> PolicyModel:
    return PolicyModel.from_directory(build_tiny_model(tmp_path), PolicyModelSettings(precision="float32"))


def _move(model: PolicyModel, size: float) -> None:
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.adapter_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=random) * size)


def test_release_zero_is_the_reference(model: PolicyModel) -> None:
    measured = GateSampler(model).measure(PROMPTS, SAMPLING)
    assert measured["finite"] == 1.0
    assert measured["kl_per_answer"] == pytest.approx(0.0, abs=1e-5)
    assert measured["entropy_ratio"] == pytest.approx(1.0, abs=1e-5)
    assert measured["gate_samples"] == len(PROMPTS)


def test_kl_is_exact(model: PolicyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against both policies' plain distributions, token by token, of the same answers."""
    _move(model, 0.1)
    drawn: list[SampledAnswer] = []

    def remember(*args: Any, **kwargs: Any) -> list[SampledAnswer]:
        answers = sample_answers(*args, **kwargs)
        drawn.extend(answers)
        return answers

    monkeypatch.setattr(gate_samples, "sample_answers", remember)
    measured = GateSampler(model).measure(PROMPTS, SAMPLING)
    expected = 0.0
    for prompt, answer in zip(PROMPTS, drawn[: len(PROMPTS)], strict=True):
        ours = _log_probs(model, prompt, answer.response_ids)
        with model.reference_policy():
            theirs = _log_probs(model, prompt, answer.response_ids)
        expected += float((ours.exp() * (ours - theirs)).sum()) / len(PROMPTS)
    assert expected > 0.01
    assert measured["kl_per_answer"] == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
def _log_probs(model: PolicyModel, prompt: tuple[int, ...], response: tuple[int, ...]) -> torch.Tensor:
    logits = model.network(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / SAMPLING.temperature, dim=-1)


def test_broken_weights_are_told_and_not_sampled(model: PolicyModel) -> None:
    with torch.no_grad():
        next(iter(model.adapter_parameters().values())).fill_(float("nan"))
    assert GateSampler(model).measure(PROMPTS, SAMPLING) == {"finite": 0.0}


def test_the_reference_answers_once(model: PolicyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def count(*args: Any, **kwargs: Any) -> list[SampledAnswer]:
        calls.append(1)
        return sample_answers(*args, **kwargs)

    monkeypatch.setattr(gate_samples, "sample_answers", count)
    sampler = GateSampler(model)
    for _ in range(3):
        sampler.measure(PROMPTS, SAMPLING)
    assert len(calls) == 4


def test_reference_answers_are_kept_for_so_many_ways_of_sampling(model: PolicyModel) -> None:
    sampler = GateSampler(model)
    for tokens in range(1, gate_samples.MOST_KEPT + 3):
        sampler.measure(PROMPTS, replace(SAMPLING, max_new_tokens=tokens))
    assert len(sampler._reference) == gate_samples.MOST_KEPT
    assert SAMPLING in sampler._reference and replace(SAMPLING, max_new_tokens=1) not in sampler._reference


def test_a_stop_is_heard_between_two_tokens(model: PolicyModel) -> None:
    heard: list[int] = []

    def safe_point() -> None:
        heard.append(1)
        if len(heard) == 3:
            raise Stopped

    model.safe_point = safe_point
    with pytest.raises(Stopped):
        GateSampler(model).measure(PROMPTS, SAMPLING)
    assert len(heard) == 3


def test_distinct2_tells_repetition() -> None:
    assert distinct2([(1, 2, 3), (4, 5)]) == 1.0
    assert distinct2([(1, 2, 1, 2, 1), (1, 2)]) == pytest.approx(2 / 5)
    assert distinct2([(1,), ()]) == 0.0
