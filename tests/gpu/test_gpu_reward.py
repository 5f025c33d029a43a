"""The reward room's pass and the reward model that is trained on its features: the device beside the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from services.learner.reward_training.reward_trainer import RewardTrainer
from services.learner.reward_training.settings import RewardTrainingSettings
from services.learner.reward_training.thumbs import Thumb
from services.reward.base_model import Answer, PassResult
from services.reward.base_pass import BasePass
from services.shared.domain.rollout import ChatMessage, Role
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.scoring import score
from tests.support.tiny_model import CORPUS, build_tiny_model

ANSWERS = 240
TRAINED = 200


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=64, layers=6)


def base_on(device: str, model_dir: Path, dtype: str = "float32") -> BasePass:
    assert dtype in ("float32", "bfloat16")
    return BasePass.from_directory(model_dir, dtype=dtype, device=device, digest="d", max_batch=16)  # type: ignore[arg-type]  # narrowed above


def made_answers(base: BasePass) -> list[Answer]:
    """Chats by the template and without it, of many lengths, at several temperatures."""
    words = " ".join(CORPUS).split()
    random = np.random.default_rng(1)
    answers = []
    for index in range(ANSWERS):
        text = " ".join(random.choice(words, size=2 + index % 30))
        chat = [ChatMessage(role=Role.USER, content=CORPUS[index % len(CORPUS)])]
        rendered = base.encode(chat, text)
        prompt = rendered.prompt_token_ids if index % 5 else rendered.prompt_token_ids[-3:]
        answers.append(
            Answer(
                prompt_token_ids=prompt,
                response_token_ids=rendered.response_token_ids,
                temperature=(0.0, 0.6, 0.8, 1.0, 1.3)[index % 5],
            )
        )
    return answers


def features_of(results: list[PassResult]) -> np.ndarray:
    return np.stack([np.frombuffer(result.features, dtype="<f2") for result in results]).astype(np.float32)


def trained_on(features_BF: np.ndarray) -> RewardHeads:
    """A taste that the mean embedding shows, one thumb in ten turned round."""
    random = np.random.default_rng(2)
    noisy_B = random.random(TRAINED) < 0.1
    cut = np.median(features_BF[:, 0])
    thumbs = [
        Thumb(
            rollout_id=f"r{row}",
            rater=f"rater-{row % 20}",
            up=bool((features_BF[row, 0] > cut) ^ noisy_B[row]),
            features_F=features_BF[row],
        )
        for row in range(TRAINED)
    ]
    # One penalty and weight: where two fit equally well, rounding may choose between them.
    settings = RewardTrainingSettings(penalties=(0.08,), middle_weights=(0.3,))
    return RewardTrainer(settings).cycle(RewardHeads.zero(features_BF.shape[1]), [], thumbs).heads


def test_reference_log_probs_and_features_agree_with_the_cpu(device: str, model_dir: Path) -> None:
    here, there = base_on("cpu", model_dir), base_on(device, model_dir)
    answers = made_answers(here)
    ours, theirs = here.run(answers), there.run(answers)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other.reference_log_probs, one.reference_log_probs, atol=1e-4)
    # Features leave as fp16: one unit in the last place apart at most.
    np.testing.assert_allclose(features_of(theirs), features_of(ours), atol=1e-4, rtol=1e-3)


def test_a_reward_model_trained_on_either_device_s_features_scores_alike(device: str, model_dir: Path) -> None:
    here, there = base_on("cpu", model_dir), base_on(device, model_dir)
    answers = made_answers(here)
    names = [f"r{row}" for row in range(ANSWERS)]
    scored = []
    for base in (here, there):
        features_BF = features_of(base.run(answers))
        scored.append(score(trained_on(features_BF), features_BF, names))
    assert scored[0].mean_B.std() > 0.1, "heads that know nothing would agree too"
    np.testing.assert_allclose(scored[1].mean_B, scored[0].mean_B, atol=0.01)
    np.testing.assert_allclose(scored[1].reward_B, scored[0].reward_B, atol=0.02)


def test_bfloat16_stays_near_float32(device: str, model_dir: Path) -> None:
    exact, rough = base_on(device, model_dir), base_on(device, model_dir, "bfloat16")
    answers = made_answers(exact)
    said = [np.array(result.reference_log_probs) for result in exact.run(answers)]
    roughly = [np.array(result.reference_log_probs) for result in rough.run(answers)]
    assert all(np.isfinite(one).all() for one in roughly)
    assert np.mean(np.abs(np.concatenate(roughly) - np.concatenate(said))) < 0.1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_is_held_where_it_was_asked_for(device: str, model_dir: Path, dtype: str) -> None:
    model = base_on(device, model_dir, dtype)._model
    assert {parameter.device.type for parameter in model.parameters()} == {torch.device(device).type}
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


def test_attention_is_not_built_anew_for_each_shape(device: str, model_dir: Path) -> None:
    """cuDNN's attention is: its kernels must not be among those that a pass starts."""
    base = base_on(device, model_dir, "bfloat16")
    answers = made_answers(base)[:32]
    with torch.profiler.profile() as profile:
        base.run(answers)
    started = [event.key for event in profile.key_averages()]
    assert any("attention" in name for name in started)
    assert not [name for name in started if "cudnn" in name and "attention" in name]
