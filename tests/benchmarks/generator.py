"""`make bench-generator`: the embedded engine against transformers' own continuous batching, interleaved in one run.

Both answer the same prompts at the same sampling in float32 on one thread, until the model's end token or the limit;
tokens a second at 8 and at 32 requests, and the ratio of ours over theirs. Ours does more for each token: it stamps
versions, records raw and behaviour log-probs and streams. Each side first answers once, uncounted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from services.embedded.chat_model import ensure_chat_model
from services.generator.engines.continuous_batching import ContinuousBatchingEngine
from services.generator.engines.interface import EngineRequest
from services.shared.domain.rollout import Sampling
from services.shared.ids import new_id, utc_now
from services.simulate.prompts import load_prompts
from tests.benchmarks.figures import write_figures

CONCURRENT = (8, 32)
TEMPERATURE = 0.8

Side = Callable[[list[tuple[int, ...]], int], Awaitable[float]]
"""Answers prompts with at most so many tokens each; tokens a second."""


async def open_ours(model: Path, empty_release: Path) -> tuple[Side, ContinuousBatchingEngine]:
    """The engine that the generator serves with."""
    engine = ContinuousBatchingEngine(model_dir=model, clock=utc_now, max_running=max(CONCURRENT), context_tokens=256)
    await engine.start()
    engine.stage("p-0000-000000-00000000", empty_release)
    engine.flip("p-0000-000000-00000000")

    async def one(prompt: tuple[int, ...], tokens: int) -> int:
        sampling = Sampling(temperature=TEMPERATURE, max_tokens=tokens)
        request = EngineRequest(request_id=new_id(), prompt_token_ids=prompt, sampling=sampling)
        return sum([1 async for _ in engine.submit(request)]) - 1

    async def run(prompts: list[tuple[int, ...]], tokens: int) -> float:
        begun = time.monotonic()
        drawn = sum(await asyncio.gather(*(one(prompt, tokens) for prompt in prompts)))
        return drawn / (time.monotonic() - begun)

    return run, engine


def open_theirs(model: Path) -> tuple[Side, Any]:
    """transformers' continuous batching as it comes, with log-probs."""
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")
    network.eval()
    make_config: Any = GenerationConfig
    manager = network.init_continuous_batching(
        generation_config=make_config(
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=1.0,
            eos_token_id=network.generation_config.eos_token_id,
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=32,
            num_blocks=8 * max(CONCURRENT),
            max_batch_tokens=256,
            allow_block_sharing=False,
            return_logprobs=True,
            use_async_batching=False,
        ),
    )
    manager.start()

    def blocking(prompts: list[tuple[int, ...]], tokens: int) -> float:
        begun = time.monotonic()
        waiting = {manager.add_request(list(prompt), max_new_tokens=tokens) for prompt in prompts}
        drawn = 0
        while waiting:
            result = manager.get_result(timeout=120)
            if result is None:
                raise TimeoutError("transformers' continuous batching gave no result within 120 s")
            if result.is_finished():
                waiting.discard(result.request_id)
                drawn += len(result.generated_tokens)
        return drawn / (time.monotonic() - begun)

    async def run(prompts: list[tuple[int, ...]], tokens: int) -> float:
        return await asyncio.to_thread(blocking, prompts, tokens)

    return run, manager


async def compare(rounds: int, tokens: int, scratch: Path) -> dict[str, float]:
    """Interleaved rounds; medians and their ratio."""
    torch.set_num_threads(1)
    model = ensure_chat_model()
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    questions = load_prompts("asked")[: max(CONCURRENT)]
    chats = [[{"role": "user", "content": question}] for question in questions]
    prompts = [
        tuple(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)) for chat in chats
    ]
    ours, engine = await open_ours(model, scratch)
    theirs, manager = open_theirs(model)
    figures: dict[str, float] = {}
    try:
        for side in (ours, theirs):
            await side(prompts[: min(CONCURRENT)], 2)
        for n in CONCURRENT:
            rates: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(rounds):
                rates["ours"].append(await ours(prompts[:n], tokens))
                rates["theirs"].append(await theirs(prompts[:n], tokens))
            medians = {side: statistics.median(values) for side, values in rates.items()}
            figures |= {f"tokens_per_s_{side}_{n}": value for side, value in medians.items()}
            figures[f"ratio_cb_{n}"] = medians["ours"] / medians["theirs"]
    finally:
        await engine.stop()
        manager.stop(block=True)
    return figures


def main() -> None:
    """Runs, prints a table with the ratio last, keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    arguments = parser.parse_args()
    scratch = Path(".bench") / "empty-release"
    scratch.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    figures = asyncio.run(compare(arguments.rounds, arguments.tokens, scratch))
    table = Table("requests", "embedded engine, tok/s", "transformers CB, tok/s", "ratio")
    for n in CONCURRENT:
        ours, theirs = figures[f"tokens_per_s_ours_{n}"], figures[f"tokens_per_s_theirs_{n}"]
        table.add_row(str(n), f"{ours:.1f}", f"{theirs:.1f}", f"{figures[f'ratio_cb_{n}']:.2f}")
    Console().print(table)
    aims = {"ratio_cb_8": ">= 1.0", "ratio_cb_32": ">= 1.0"}
    print(write_figures("bench-generator", figures, aims, seconds=time.monotonic() - begun))


if __name__ == "__main__":
    main()
