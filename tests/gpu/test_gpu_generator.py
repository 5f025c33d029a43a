"""The embedded engine on the device of `--device`, beside transformers' own generation on the same device.

What the engine does on any device (flips in the middle of answers, cancelling, draining) is in
`tests/contract/engines`, which `make test-gpu` runs on the GPU too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from services.generator.engines.continuous_batching import PAGE_TOKENS, ContinuousBatchingEngine
from services.generator.engines.interface import EngineFinished, EngineRequest, EngineToken
from services.shared.domain.rollout import FinishReason, Sampling
from services.shared.ids import utc_now
from tests.support.tiny_model import build_tiny_model

STREAMS = 12
MAX_RUNNING = 4
TOKENS = 40
KV_BYTES = 512 * 1024  # enough for four of the longest answers
END_TOKEN = 2

Answer = tuple[list[EngineToken], EngineFinished]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=64, layers=6)


@pytest.fixture(scope="module")
def plain(model_dir: Path, device: str) -> Any:
    """The same weights as transformers runs them."""
    model: Any = AutoModelForCausalLM.from_pretrained(str(model_dir), dtype=torch.float32)
    return model.to(device).eval()


@pytest.fixture
async def engine(model_dir: Path, device: str, tmp_path: Path) -> AsyncIterator[ContinuousBatchingEngine]:
    """The base is live; a step reads at most 16 tokens, so prompts come in parts."""
    engine = ContinuousBatchingEngine(
        model_dir=model_dir,
        clock=utc_now,
        device=device,
        max_running=MAX_RUNNING,
        max_batch_tokens=16,
        context_tokens=128,
        kv_bytes=KV_BYTES,
    )
    await engine.start()
    engine.stage("base", tmp_path)
    engine.flip("base")
    yield engine
    await engine.stop()


def prompt_of(stream: int) -> tuple[int, ...]:
    """Of different lengths, some longer than a step."""
    return tuple(3 + (7 * stream + index * (stream + 1)) % 250 for index in range(5 + 3 * stream))


async def answer(engine: ContinuousBatchingEngine, stream: int, temperature: float) -> Answer:
    sampling = Sampling(temperature=temperature, max_tokens=TOKENS, seed=stream)
    request = EngineRequest(request_id=f"s{stream}", prompt_token_ids=prompt_of(stream), sampling=sampling)
    *tokens, finished = [event async for event in engine.submit(request)]
    assert isinstance(finished, EngineFinished)
    return [token for token in tokens if isinstance(token, EngineToken)], finished


async def answers(engine: ContinuousBatchingEngine, temperature: float) -> Sequence[Answer]:
    return await asyncio.gather(*(answer(engine, stream, temperature) for stream in range(STREAMS)))


async def test_greedy_tokens_are_those_of_plain_generation(
    engine: ContinuousBatchingEngine, plain: Any, device: str
) -> None:
    for stream, (tokens, finished) in enumerate(await answers(engine, 0.0)):
        prompt = prompt_of(stream)
        generated = plain.generate(
            input_ids=torch.tensor([prompt], device=device), do_sample=False, max_new_tokens=TOKENS
        )
        ours = [token.token_id for token in tokens]
        assert ours == generated[0, len(prompt) :].tolist()
        assert finished.reason is (FinishReason.STOP if ours[-1] == END_TOKEN else FinishReason.LENGTH)


async def test_log_probs_of_sampled_tokens_are_those_of_one_teacher_forced_pass(
    engine: ContinuousBatchingEngine, plain: Any, device: str
) -> None:
    for stream, (tokens, _) in enumerate(await answers(engine, 0.7)):
        prompt, drawn = prompt_of(stream), [token.token_id for token in tokens]
        with torch.no_grad():
            logits_TV = plain(torch.tensor([[*prompt, *drawn]], device=device)).logits[0, len(prompt) - 1 : -1]
        for temperature, said in ((0.7, [t.log_prob for t in tokens]), (1.0, [t.raw_log_prob for t in tokens])):
            log_probs_TV = (logits_TV.double() / temperature).log_softmax(dim=-1).cpu()
            expected = log_probs_TV.gather(1, torch.tensor(drawn)[:, None])[:, 0].tolist()
            assert said == pytest.approx(expected, abs=1e-4)


async def test_the_kv_cache_lies_on_the_device_and_keeps_to_its_bound(
    engine: ContinuousBatchingEngine, device: str
) -> None:
    """Three times as many streams as run at a time, and every one is answered; nothing grows meanwhile."""
    cache = engine._manager.batch_processor.cache.cache_tensor
    assert cache.device.type == torch.device(device).type
    a_token = KV_BYTES // engine.capabilities.kv_tokens
    assert engine.capabilities.kv_tokens < engine.capabilities.context_tokens * MAX_RUNNING
    # A page more for each that may run, one begun, and the library's two for padding.
    assert cache.nbytes <= KV_BYTES + (MAX_RUNNING + 3) * PAGE_TOKENS * a_token
    await answers(engine, 1.0)
    before = torch.cuda.memory_allocated() if device != "cpu" else 0
    assert all(finished.reason is not FinishReason.ERROR for _, finished in await answers(engine, 1.0))
    after = torch.cuda.memory_allocated() if device != "cpu" else 0
    assert after - before < a_token * PAGE_TOKENS
