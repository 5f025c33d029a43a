"""`make bench-gpu`: generator, PPO update and reward scoring on the CPU and on the GPU, both in one run.

The CPU runs on one thread, as the rooms do, and once more on all cores. Prompts are the simulation's, by the chat
model's own template; the learner's and the reward room's answers are random tokens, whose cost is that of any other.
Each side first runs once, uncounted; the GPU's figures are medians, the CPU's of one round. `--large` adds a PPO update
of a policy of 1.7 billion random weights (SmolLM2-1.7B's shape) on the GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from services.embedded.chat_model import ensure_chat_model
from services.generator.engines.continuous_batching import ContinuousBatchingEngine
from services.generator.engines.interface import EngineRequest
from services.learner.model.packing import TokenSequence
from services.learner.model.policy_model import PolicyModel
from services.learner.model.settings import PolicyModelSettings
from services.learner.ppo.batch import PpoBatch, TrainingRollout
from services.learner.ppo.settings import PpoSettings
from services.learner.ppo.update import PpoUpdate
from services.reward.base_model import Answer
from services.reward.base_pass import BasePass
from services.shared.checkpoints.models import EMBEDDED_MODEL
from services.shared.domain.rollout import Sampling
from services.shared.ids import new_id, utc_now
from services.shared.torch_process import prepare_torch
from services.simulate.prompts import load_prompts
from tests.benchmarks.figures import write_figures
from tests.support.policy_releases import write_adapter

STREAMS = (1, 16, 64)
FLIPS = 6
FLIP_STREAMS = 16
ROLLOUTS = 48
ANSWER_TOKENS = 48
SCORED = 96
TEMPERATURE = 0.8

Dtype = Literal["float32", "bfloat16"]
Prompt = tuple[int, ...]
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Side:
    """Where and how one side of the comparison computes."""

    name: str
    device: str
    dtype: Dtype
    threads: int = 1


def sides(gpu: str) -> tuple[Side, ...]:
    """The CPU as the rooms use it first: it is what all ratios are of."""
    cores = os.cpu_count() or 1
    return (
        Side(name="cpu_1_thread", device="cpu", dtype="float32"),
        Side(name=f"cpu_{cores}_threads", device="cpu", dtype="float32", threads=cores),
        Side(name="gpu", device=gpu, dtype="float32"),
        Side(name="gpu_bf16", device=gpu, dtype="bfloat16"),
    )


def settle(side: Side) -> None:
    """Before a measurement: the side's threads, no memory of the one before."""
    prepare_torch()
    torch.set_num_threads(side.threads)
    gc.collect()
    if side.device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(side: Side, what: str) -> Figures:
    """Most memory that tensors had on the GPU since `settle`."""
    if side.device == "cpu":
        return {}
    return {f"{what}_peak_mib_{side.name}": torch.cuda.max_memory_allocated() / 2**20}


def timed(work: Callable[[], object], rounds: int, side: Side) -> float:
    """Median seconds; the first round is not counted."""
    seconds = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        work()
        if side.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def chat_prompts(model_dir: Path, count: int) -> list[Prompt]:
    """The first questions of the simulation, as the model reads them."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
    chats = [[{"role": "user", "content": question}] for question in load_prompts("asked")]
    rendered = [
        tuple(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)) for chat in chats
    ]
    return [rendered[index % len(rendered)] for index in range(count)]


def random_answers(count: int, vocabulary: int) -> list[Prompt]:
    """Answers of `ANSWER_TOKENS` tokens, the same each time."""
    random = torch.Generator().manual_seed(1)
    return [tuple(row) for row in torch.randint(3, vocabulary, (count, ANSWER_TOKENS), generator=random).tolist()]


def generator_figures(side: Side, model_dir: Path, releases: Sequence[Path], rounds: int, tokens: int) -> Figures:
    """Tokens a second at each number of streams, then flips while `FLIP_STREAMS` answers run."""
    settle(side)
    return asyncio.run(_generate(side, model_dir, releases, rounds, tokens)) | peak(side, "generator")


async def _generate(side: Side, model_dir: Path, releases: Sequence[Path], rounds: int, tokens: int) -> Figures:
    prompts = chat_prompts(model_dir, max(STREAMS))
    engine = ContinuousBatchingEngine(
        model_dir=model_dir,
        clock=utc_now,
        device=side.device,
        dtype=side.dtype,
        max_running=max(STREAMS),
        context_tokens=1024,
        kv_bytes=2 * 2**30,
    )
    await engine.start()
    engine.stage("0", releases[0])
    engine.flip("0")

    async def one(prompt: Prompt, length: int) -> int:
        sampling = Sampling(temperature=TEMPERATURE, max_tokens=length)
        request = EngineRequest(request_id=new_id(), prompt_token_ids=prompt, sampling=sampling)
        return sum([1 async for _ in engine.submit(request)]) - 1

    async def rate(streams: int) -> float:
        begun = time.perf_counter()
        drawn = sum(await asyncio.gather(*(one(prompt, tokens) for prompt in prompts[:streams])))
        return drawn / (time.perf_counter() - begun)

    figures: Figures = {}
    try:
        await rate(2)
        for streams in STREAMS:
            rates = [await rate(streams) for _ in range(rounds)]
            figures[f"tokens_per_s_{streams}_{side.name}"] = statistics.median(rates)
        running = [asyncio.create_task(one(prompt, 900)) for prompt in prompts[:FLIP_STREAMS]]
        staged, waited, held = [], [], []
        for number in range(1, FLIPS + 1):
            begun = time.perf_counter()
            await asyncio.to_thread(engine.stage, str(number), releases[number % len(releases)])
            staged.append(time.perf_counter() - begun)
            report = await asyncio.to_thread(engine.flip, str(number))
            waited.append(report.wait_s)
            held.append(report.held_s)
        figures[f"answers_running_at_last_flip_{side.name}"] = sum(not task.done() for task in running)
        for name, values in (("stage", staged), ("flip_wait", waited), ("flip_held", held)):
            figures[f"{name}_ms_{side.name}"] = 1000 * statistics.median(values)
    finally:
        await engine.stop()
    await asyncio.gather(*running)
    return figures


def rollouts(model: PolicyModel, prompts: Sequence[Prompt]) -> PpoBatch:
    """On-policy, with rewards that differ."""
    answers = random_answers(len(prompts), int(model.network.config.vocab_size))
    sequences = [
        TokenSequence(prompt_ids=prompt, response_ids=answer, temperature=TEMPERATURE)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    said = model.evaluate_all(model.prepare(sequences))
    made = []
    for index, (sequence, taken_T) in enumerate(
        zip(sequences, torch.split(said.logprobs_R, list(said.lengths_B)), strict=True)
    ):
        log_probs = tuple(taken_T.tolist())
        made.append(
            TrainingRollout(
                rollout_id=f"r{index}",
                prompt_ids=sequence.prompt_ids,
                response_ids=sequence.response_ids,
                temperature=TEMPERATURE,
                behaviour_logprobs=log_probs,
                reference_logprobs=log_probs,
                reward_terms={"thumb": (0.8, -0.6, 0.3, -0.9)[index % 4]},
            )
        )
    return PpoBatch(rollouts=tuple(made))


def learner_figures(side: Side, model_dir: Path, prompts: Sequence[Prompt], rounds: int) -> Figures:
    """Seconds of one update of `ROLLOUTS` rollouts, at the defaults of adapter and update."""
    settle(side)
    model = PolicyModel.from_directory(model_dir, PolicyModelSettings(precision=side.dtype, device=side.device))
    batch = rollouts(model, prompts)
    update = PpoUpdate(model, PpoSettings())
    seconds = timed(lambda: update.run(batch), rounds, side)
    return {f"ppo_update_s_{side.name}": seconds} | peak(side, "ppo_update")


def large_config() -> LlamaConfig:
    """SmolLM2-1.7B's."""
    return LlamaConfig(
        vocab_size=49152,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=24,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )


def large_figures(side: Side, prompts: Sequence[Prompt], rounds: int) -> Figures:
    """The same of 1.7 billion random weights, made where they are used."""
    settle(side)
    with torch.device(side.device):
        base = LlamaForCausalLM(large_config())
    model = PolicyModel(base, PolicyModelSettings(precision=side.dtype, device=side.device))
    batch = rollouts(model, prompts)
    update = PpoUpdate(model, PpoSettings())
    seconds = timed(lambda: update.run(batch), rounds, side)
    return {f"ppo_update_1700m_random_s_{side.name}": seconds} | peak(side, "ppo_update_1700m_random")


def reward_figures(side: Side, model_dir: Path, prompts: Sequence[Prompt], rounds: int) -> Figures:
    """Answers that the base pass reads in a second: reference log-probs and features."""
    settle(side)
    base = BasePass.from_directory(model_dir, dtype=side.dtype, device=side.device, digest="", max_batch=16)
    answers = [
        Answer(prompt_token_ids=prompt, response_token_ids=answer, temperature=TEMPERATURE)
        for prompt, answer in zip(prompts, random_answers(len(prompts), base.vocabulary), strict=True)
    ]
    seconds = timed(lambda: base.run(answers), rounds, side)
    return {f"scores_per_s_{side.name}": len(answers) / seconds} | peak(side, "reward")


def measure(arguments: argparse.Namespace) -> Figures:
    """All sides, one after another; says what it has as it goes."""
    model_dir = Path(arguments.model) if arguments.model else ensure_chat_model()
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        releases = [Path(scratch) / name for name in ("base", "one", "two")]
        releases[0].mkdir()
        for seed, folder in enumerate(releases[1:], start=1):
            write_adapter(folder, model_dir, seed=seed, size=0.01, rank=16, layers=10)
        for side in sides(arguments.gpu):
            rounds = arguments.rounds if side.device != "cpu" else 1
            parts: list[Callable[[], Figures]] = [
                partial(generator_figures, side, model_dir, releases, rounds, arguments.tokens),
                partial(learner_figures, side, model_dir, chat_prompts(model_dir, ROLLOUTS), rounds),
                partial(reward_figures, side, model_dir, chat_prompts(model_dir, SCORED), rounds),
            ]
            if arguments.large and side.device != "cpu":
                parts.append(partial(large_figures, side, chat_prompts(model_dir, ROLLOUTS), rounds))
            for part in parts:
                found = part()
                print({name: round(value, 4) for name, value in found.items()}, flush=True)
                figures |= found
    return figures


def ratios(figures: Figures) -> Figures:
    """How many times faster each side is than the first, by measurement."""
    found: Figures = {}
    base = "cpu_1_thread"
    for name, value in figures.items():
        measured, _, _ = name.partition(f"_{base}")
        if not name.endswith(f"_{base}") or not ("per_s" in measured or measured == "ppo_update_s"):
            continue
        for other in figures:
            if other.startswith(f"{measured}_") and other != name:
                faster = figures[other] / value if "per_s" in measured else value / figures[other]
                found[f"ratio_{other}"] = faster
    return found


def machine(arguments: argparse.Namespace) -> dict[str, str]:
    """What the figures hold for."""
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model": Path(arguments.model or EMBEDDED_MODEL).name,
    }
    if arguments.gpu != "cpu":
        found |= {"gpu": torch.cuda.get_device_name(arguments.gpu), "cuda": str(torch.version.cuda)}
    return found


def main() -> None:
    """Runs, prints the ratios, keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="cuda", help="device of the GPU's side")
    parser.add_argument("--model", default="", help="folder of a chat model; default: the embedded one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--large", action="store_true", help="also 1.7 billion random weights")
    arguments = parser.parse_args()
    if arguments.gpu != "cpu" and not torch.cuda.is_available():
        parser.error(
            f"torch {torch.__version__} sees no GPU; make setup with UV_TORCH_BACKEND=auto on a machine with one"
        )
    begun = time.monotonic()
    figures = measure(arguments)
    compared = ratios(figures)
    table = Table("measurement", "times one CPU thread")
    for name, value in compared.items():
        table.add_row(name.removeprefix("ratio_"), f"{value:.1f}")
    Console().print(table)
    print(
        write_figures("bench-gpu", figures | compared, {}, seconds=time.monotonic() - begun, machine=machine(arguments))
    )


if __name__ == "__main__":
    main()
