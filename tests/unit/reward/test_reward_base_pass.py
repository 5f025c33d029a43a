"""The adapter-off pass against the plain model, one answer at a time, without padding or a kept prefix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from services.reward.base_model import Answer, PassResult, check
from services.reward.base_pass import BasePass
from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import ChatMessage, Role
from tests.support.tiny_model import build_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), layers=6)


@pytest.fixture(scope="module")
def base(folder: Path) -> BasePass:
    return BasePass.from_directory(folder, dtype="float32", device="cpu", digest="d", max_batch=3)


def _answers(base: BasePass) -> list[Answer]:
    """Different lengths and temperatures; one brings a system prompt of its own, one no chat template at all."""
    chats = [
        [ChatMessage(role=Role.USER, content="How are you today?")],
        [ChatMessage(role=Role.USER, content="Tell me a story about the sea and a dog.")],
        [ChatMessage(role=Role.SYSTEM, content="Be short."), ChatMessage(role=Role.USER, content="Rice?")],
        [ChatMessage(role=Role.USER, content="x")],
    ]
    texts = ["I am well, thank you!", "Once", "Boil water and wait for twelve minutes, then add salt.", "y z"]
    temperatures = [0.8, 1.0, 0.5, 0.0]
    rendered = [base.encode(chat, text) for chat, text in zip(chats, texts, strict=True)]
    answers = [
        Answer(
            prompt_token_ids=one.prompt_token_ids,
            response_token_ids=one.response_token_ids,
            temperature=temperature,
        )
        for one, temperature in zip(rendered, temperatures, strict=True)
    ]
    return [*answers, Answer(prompt_token_ids=(5,), response_token_ids=(7, 8, 2), temperature=1.2)]


def _plainly(folder: Path, answer: Answer) -> tuple[np.ndarray, np.ndarray]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([answer.prompt_token_ids + answer.response_token_ids])
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    start = len(answer.prompt_token_ids)
    log_probs = torch.log_softmax(out.logits[0, start - 1 : -1] / (answer.temperature or 1.0), dim=-1)
    taken = log_probs.gather(1, torch.tensor(answer.response_token_ids)[:, None])[:, 0]
    means = [out.hidden_states[layer][0, start:].mean(dim=0) for layer in (0, 2, 4)]
    return taken.numpy(), torch.cat(means).numpy()


def _vector(result: PassResult) -> np.ndarray:
    return np.frombuffer(result.features, dtype="<f2").astype(np.float32)


def test_batched_equals_alone(base: BasePass, folder: Path) -> None:
    answers = _answers(base)
    for answer, result in zip(answers, base.run(answers), strict=True):
        log_probs, features = _plainly(folder, answer)
        np.testing.assert_allclose(result.reference_log_probs, log_probs, atol=1e-4)
        np.testing.assert_allclose(_vector(result), features, atol=2e-3, rtol=2e-3)


def test_order_and_company_change_nothing(base: BasePass) -> None:
    answers = _answers(base)
    together = base.run(answers)
    for answer, result in zip(reversed(answers), base.run(answers[::-1]), strict=True):
        twin = together[answers.index(answer)]
        np.testing.assert_allclose(result.reference_log_probs, twin.reference_log_probs, atol=1e-4)


def test_layout_names_the_parts(base: BasePass) -> None:
    assert base.feature_layout == "means-emb-l2-l4/32x3"
    assert base.feature_count == 96
    assert len(base.run(_answers(base)[:1])[0].features) == 2 * 96


def test_the_templates_beginning_is_read_once(base: BasePass) -> None:
    shared = [base._shares_prefix(answer) for answer in _answers(base)]
    assert shared == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(prompt_token_ids=(), response_token_ids=(1,)), "EMPTY_TOKENS"),
        (Answer(prompt_token_ids=(1,), response_token_ids=()), "EMPTY_TOKENS"),
        (Answer(prompt_token_ids=(1,), response_token_ids=(99_999,)), "UNKNOWN_TOKEN"),
        (Answer(prompt_token_ids=(1,) * 2048, response_token_ids=(1,)), "TOO_LONG"),
        (Answer(prompt_token_ids=(1,), response_token_ids=(1,), temperature=9.0), "BAD_TEMPERATURE"),
    ],
)
def test_what_the_base_cannot_read_is_refused(base: BasePass, answer: Answer, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(answer, base, name="items[3]")
    assert caught.value.reason == reason
    assert caught.value.field == "items[3]"
