"""A flip in the middle of answers of the real model.

Plan: SmolLM2 on continuous batching in float32; several chats are being answered when a release with an adapter goes
live, and then the base again. Every token's log-prob is recomputed by a plain transformers forward pass, under the
version that its span names and the KV cache as the span says it was.
Pass: all agree within 1e-3, in at least two answers that cross both flips. The same comparison under the wrong version
differs by far more, so the test could fail.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.generator.engines.continuous_batching import ContinuousBatchingEngine
from services.generator.engines.interface import EngineEvent, EngineFinished, EngineRequest, EngineToken, spans_of
from services.generator.prompt import HuggingFaceTokenizer
from services.shared.checkpoints.models import resolve_model
from services.shared.domain.rollout import ChatMessage, FinishReason, Role, Sampling
from services.shared.ids import utc_now
from services.shared.settings.model import ModelSettings
from tests.support.policy_releases import plain_model, recompute_log_probs, write_adapter

QUESTIONS = ("Tell me about the sea.", "How do I cook rice?", "Name three birds.", "What is a good morning routine?")
TEMPERATURE = 0.8
NEW_TOKENS = 24
FLIP_AFTER = (6, 14)
TOLERANCE = 1e-3


class Answer:
    """Reads a response on and on."""

    def __init__(self, engine: ContinuousBatchingEngine, request: EngineRequest) -> None:
        self.prompt = request.prompt_token_ids
        self.tokens: list[EngineToken] = []
        self.finished: EngineFinished | None = None
        self._events = engine.submit(request)

    async def read_until(self, count: int) -> None:
        """Until it has so many tokens, or ended."""
        while len(self.tokens) < count and self.finished is None:
            event: EngineEvent = await anext(self._events)
            if isinstance(event, EngineFinished):
                self.finished = event
            else:
                self.tokens.append(event)


@pytest.mark.timeout(600)
async def test_every_log_prob_agrees_under_its_recorded_version_and_kv_history(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model_dir = resolve_model(ModelSettings())
    releases = {"base": tmp_path / "base", "adapted": tmp_path / "adapted"}
    releases["base"].mkdir()
    write_adapter(releases["adapted"], model_dir, seed=1, size=0.02, rank=16, layers=10)
    engine = ContinuousBatchingEngine(model_dir=model_dir, clock=utc_now, max_running=4)
    await engine.start()
    try:
        answers = await _answers_over_two_flips(engine, HuggingFaceTokenizer(model_dir), releases)
    finally:
        await engine.stop()
    models = {version: plain_model(model_dir, folder) for version, folder in releases.items()}
    wrong_way = []
    for answer in answers:
        said = [token.log_prob for token in answer.tokens]
        ids = [token.token_id for token in answer.tokens]
        spans = spans_of(answer.tokens, engine.capabilities.kv_at_flip)
        assert [span.policy_version for span in spans] == ["base", "adapted", "base"]
        found = recompute_log_probs(models, prompt=answer.prompt, response=ids, spans=spans, temperature=TEMPERATURE)
        assert found == pytest.approx(said, abs=TOLERANCE)
        wrong = tuple(replace(span, policy_version="base") for span in spans)
        other = recompute_log_probs(models, prompt=answer.prompt, response=ids, spans=wrong, temperature=TEMPERATURE)
        differences = [abs(a - b) for a, b in zip(other, said, strict=True)]
        # Before the first flip the wrong assumption is right; after it the cache differs for good.
        assert max(differences[: spans[1].begin]) <= TOLERANCE
        wrong_way.append(max(differences[spans[1].begin :]))
    assert min(wrong_way) > 20 * TOLERANCE


async def _answers_over_two_flips(
    engine: ContinuousBatchingEngine, tokenizer: HuggingFaceTokenizer, releases: dict[str, Path]
) -> list[Answer]:
    await asyncio.to_thread(engine.stage, "base", releases["base"])
    await asyncio.to_thread(engine.flip, "base")
    sampling = Sampling(temperature=TEMPERATURE, max_tokens=NEW_TOKENS)
    answers = [
        Answer(
            engine,
            EngineRequest(
                request_id=f"r{index}",
                prompt_token_ids=tokenizer.render([ChatMessage(role=Role.USER, content=question)]),
                sampling=sampling,
            ),
        )
        for index, question in enumerate(QUESTIONS)
    ]
    await asyncio.to_thread(engine.stage, "adapted", releases["adapted"])
    for count, version in zip(FLIP_AFTER, ("adapted", "base"), strict=True):
        await asyncio.gather(*(answer.read_until(count) for answer in answers))
        await asyncio.to_thread(engine.stage, version, releases[version])
        await asyncio.to_thread(engine.flip, version)
    await asyncio.gather(*(answer.read_until(NEW_TOKENS + 1) for answer in answers))
    for answer in answers:
        assert answer.finished is not None
        assert answer.finished.reason in (FinishReason.LENGTH, FinishReason.STOP)
    # A model may end an answer before the second flip; such an answer says nothing here.
    crossing = [answer for answer in answers if len(spans_of(answer.tokens, engine.capabilities.kv_at_flip)) == 3]
    assert len(crossing) >= 2
    return crossing
