"""The base model's own answers, sampled as the traffic is: what the guard is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.shared.precision import Precision, resolve_precision


def sample_answers(
    model_path: Path | str,
    prompts: Sequence[str],
    *,
    temperature: float,
    new_tokens: int,
    seed: int,
    precision: Precision = "auto",
    batch_size: int = 64,
) -> list[str]:
    """One answer for each prompt, in order, by plain sampling (top-p 1, top-k off). Seeds torch's global generator."""
    torch.manual_seed(seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=resolve_precision(precision, "cpu"))
    model.eval()
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        texts = [_render(tokenizer, prompt) for prompt in prompts[start : start + batch_size]]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        outputs = model.generate(
            **inputs,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
        answers += tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def _render(tokenizer: Any, prompt: str) -> str:
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
    )
    return text
