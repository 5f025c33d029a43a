"""What only the engine with a model can get wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.generator.engines.continuous_batching import ContinuousBatchingEngine
from services.generator.engines.interface import EngineFinished, EngineToken, spans_of
from services.shared.domain.errors import Corrupt, Unavailable
from services.shared.domain.rollout import FinishReason, KvHistory
from services.shared.ids import utc_now
from tests.contract.engines.cases import LONG_SEEDS, collect, plain, request, split
from tests.support.generator_room import until
from tests.support.policy_releases import plain_model, recompute_log_probs

STEP_TOKENS = 16


@pytest.fixture
async def engine(tiny_model: Path, releases: dict[str, Path], device: str) -> AsyncIterator[ContinuousBatchingEngine]:
    """Reads prompts in parts of 16 tokens; v0 is live."""
    engine = ContinuousBatchingEngine(
        model_dir=tiny_model,
        clock=utc_now,
        device=device,
        max_running=4,
        max_batch_tokens=STEP_TOKENS,
        context_tokens=1024,
    )
    await engine.start()
    engine.stage("v0", releases["v0"])
    engine.flip("v0")
    yield engine
    await engine.stop()


async def test_a_prompt_half_read_at_a_flip_is_read_again(
    engine: ContinuousBatchingEngine, tiny_model: Path, releases: dict[str, Path]
) -> None:
    """Prompts of 600 tokens take 38 steps of 16; flips come meanwhile. Spans must still tell the whole truth."""
    models = {version: plain_model(tiny_model, folder) for version, folder in releases.items()}
    prompt = tuple(3 + index % 250 for index in range(600))
    answers: list[asyncio.Task[tuple[list[EngineToken], EngineFinished]]] = []
    restarted = 0
    for attempt, version in enumerate(("v1", "v2") * 20):
        if restarted and attempt >= 8:
            break
        if attempt % 8 == 0:
            names = [f"long{attempt}-{i}" for i in range(4)]
            answers += [asyncio.create_task(collect(engine, request(name, plain(20), prompt))) for name in names]
        engine.stage(version, releases[version])
        processor = engine._manager.batch_processor
        before = {s.request_id: s.position_offset for s in processor.scheduler.active_requests.values()}
        await asyncio.to_thread(engine.flip, version)
        after = {s.request_id: s.position_offset for s in processor.scheduler.active_requests.values()}
        restarted += any(after.get(name, 0) < offset for name, offset in before.items())
        await asyncio.sleep(0.01)
    assert restarted, "no flip came while a prompt was being read; the test would prove nothing"
    for tokens, finished in await asyncio.gather(*answers):
        assert finished.reason in (FinishReason.LENGTH, FinishReason.STOP)
        spans = spans_of(tokens, KvHistory.KEPT)
        ids = [token.token_id for token in tokens]
        found = recompute_log_probs(models, prompt=prompt, response=ids, spans=spans, temperature=1.0)
        assert found == pytest.approx([token.log_prob for token in tokens], abs=1e-3)


async def test_equal_prompts_share_nothing_that_outlives_a_flip(
    engine: ContinuousBatchingEngine, tiny_model: Path, releases: dict[str, Path]
) -> None:
    """A prefix cache would answer the second request from keys and values of the old version."""
    prompt = tuple(3 + index % 250 for index in range(200))
    await collect(engine, request("before", plain(4), prompt))
    engine.stage("v1", releases["v1"])
    await asyncio.to_thread(engine.flip, "v1")
    tokens, _ = await collect(engine, request("after", plain(8), prompt))
    models = {"v1": plain_model(tiny_model, releases["v1"])}
    ids = [token.token_id for token in tokens]
    spans = spans_of(tokens, KvHistory.KEPT)
    found = recompute_log_probs(models, prompt=prompt, response=ids, spans=spans, temperature=1.0)
    assert found == pytest.approx([token.log_prob for token in tokens], abs=1e-3)


async def test_back_to_the_base_restores_its_weights(
    engine: ContinuousBatchingEngine, tiny_model: Path, releases: dict[str, Path]
) -> None:
    for version in ("v1", "v2", "v0"):
        engine.stage(version, releases[version])
        await asyncio.to_thread(engine.flip, version)
    tokens, _ = await collect(engine, request("base", plain(12, seed=5)))
    found = recompute_log_probs(
        {"v0": plain_model(tiny_model, releases["v0"])},
        prompt=request("base", plain()).prompt_token_ids,
        response=[token.token_id for token in tokens],
        spans=spans_of(tokens, KvHistory.KEPT),
        temperature=1.0,
    )
    assert found == pytest.approx([token.log_prob for token in tokens], abs=1e-3)


@pytest.mark.parametrize("damage", ["shape", "nan", "unknown module", "missing tensor", "no json", "not safetensors"])
async def test_a_damaged_release_leaves_the_old_one_serving(
    engine: ContinuousBatchingEngine, releases: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(releases["v1"], folder)
    weights, record = folder / "adapter.safetensors", folder / "adapter.json"
    tensors = load_file(str(weights))
    settings = json.loads(record.read_text())
    name = settings["modules"][0]
    if damage == "shape":
        tensors[f"{name}.lora_B"] = tensors[f"{name}.lora_B"][:-1].contiguous()
    elif damage == "nan":
        tensors[f"{name}.lora_A"][0, 0] = torch.nan
    elif damage == "unknown module":
        for factor in ("lora_A", "lora_B"):
            tensors[f"model.layers.99.{factor}"] = tensors.pop(f"{name}.{factor}")
        settings["modules"][0] = "model.layers.99"
    elif damage == "missing tensor":
        del tensors[f"{name}.lora_A"]
    save_file(tensors, str(weights))
    record.write_text(json.dumps(settings))
    if damage == "no json":
        record.unlink()
    elif damage == "not safetensors":
        weights.write_bytes(b"not safetensors at all")
    with pytest.raises(Corrupt):
        engine.stage("bad", folder)
    assert engine.live_version == "v0"
    assert (await collect(engine, request("still", plain(4))))[1].reason is not FinishReason.ERROR


async def test_a_dead_decode_loop_ends_every_request_and_says_so(engine: ContinuousBatchingEngine) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("planted")

    stream = engine.submit(request("doomed", plain(500, seed=LONG_SEEDS[0])))
    first = await anext(stream)
    engine._manager.batch_processor._generation_step = broken
    _, finished = split([first, *[event async for event in stream]])
    assert finished.reason is FinishReason.ERROR and "planted" in finished.message
    await until(lambda: bool(engine.failure), what="the engine says that it failed")
    with pytest.raises(Unavailable):
        engine.submit(request("late", plain(4)))


async def test_cancelled_requests_are_forgotten_everywhere(engine: ContinuousBatchingEngine) -> None:
    streams = [engine.submit(request(f"r{index}", plain(500))) for index in range(4)]
    for index, stream in enumerate(streams):
        await anext(stream)
        engine.cancel(f"r{index}")
    await collect(engine, request("next", plain(4)))
    assert not engine._manager.output_router.result_handlers
    assert not engine._sampler._traces
    assert not engine._manager.batch_processor.scheduler.active_requests


async def test_bfloat16_draws_and_flips_too(tiny_model: Path, releases: dict[str, Path], device: str) -> None:
    engine = ContinuousBatchingEngine(
        model_dir=tiny_model, clock=utc_now, device=device, max_running=4, dtype="bfloat16"
    )
    await engine.start()
    try:
        for version in ("v0", "v1"):
            engine.stage(version, releases[version])
            await asyncio.to_thread(engine.flip, version)
            tokens, finished = await collect(engine, request(version, plain(8, seed=1)))
            assert finished.reason in (FinishReason.LENGTH, FinishReason.STOP)
            assert {token.policy_version for token in tokens} == {version}
    finally:
        await engine.stop()
