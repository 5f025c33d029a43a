"""Log-probs of answers under the frozen base model: the only reading of a model that the guard makes.

For every (prompt, answer) two sums are taken, both of the raw model at temperature 1:

- ``log_prob``: of the answer after its own prompt;
- ``neutral_log_prob``: of the answer after each of ``NEUTRAL_PROMPTS``, which ask nothing; the largest counts.

Their difference is how many nats the prompt explains of the answer (pointwise mutual information, as in Li et al.
2016, arXiv 1510.03055): an answer that would do for any prompt gains nothing from this one.

What all contexts of a pass share (the system prompt, or the whole neutral prompt) runs once and its keys and values
are kept, logits are made for answer tokens alone, and batches hold answers of similar length.

Shapes: ``B`` answers of a batch, ``T`` tokens of the longest, ``H`` hidden, ``V`` vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils.logging import disable_progress_bar

from services.shared.precision import Precision, resolve_precision
from services.simulate.guard.verdict import AnswerStatistics, repeated_trigrams

NEUTRAL_PROMPTS = ("Give me some advice.", "Can I ask you a question?")
"""A request and a question about nothing at all: what suits one of these as well as the prompt does not speak to it."""


class GuardScorer:
    """The frozen base model, held to measure answers. Not thread-safe; one instance per process is enough.

    ``precision``: bfloat16 is twice as fast where the CPU has it (elsewhere several times slower) and shifts the sum of
    24 log-probs by 0.2 nats on average and 0.9 at most (48 answers), which matters only to an answer that close to a
    bound. The committed bounds were made with it.
    """

    def __init__(self, model_path: Path | str, *, precision: Precision = "auto", batch_size: int = 32) -> None:
        path = Path(model_path).expanduser()
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"no model at {path}: convert the chat model or give its folder")
        disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers has no types
        self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=resolve_precision(precision, "cpu"))
        self._model = model.eval()
        self._batch_size = batch_size

    def statistics(self, items: Sequence[tuple[str, str]]) -> list[AnswerStatistics]:
        """Measure (prompt, answer) pairs, in their order. Texts as users see them, without special tokens."""
        answers = [self._answer_ids(answer) for _, answer in items]
        own = self._log_probs([self._context_ids(prompt) for prompt, _ in items], answers)
        neutral = [
            self._log_probs([context] * len(answers), answers) for context in map(self._context_ids, NEUTRAL_PROMPTS)
        ]
        return [
            AnswerStatistics(
                tokens=len(answers[i]),
                log_prob=own[i],
                neutral_log_prob=max(log_probs[i] for log_probs in neutral),
                repeated_trigrams=repeated_trigrams(answer),
            )
            for i, (_, answer) in enumerate(items)
        ]

    def _context_ids(self, prompt: str) -> list[int]:
        """Token ids of a conversation of one message, up to where the answer begins."""
        messages = [{"role": "user", "content": prompt}]
        text: str = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _answer_ids(self, answer: str) -> list[int]:
        return list(self._tokenizer(answer.strip(), add_special_tokens=False)["input_ids"])

    def _log_probs(self, contexts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[float]:
        """Sum of the log-probs of each answer's tokens after its context; 0.0 for an answer without tokens."""
        sums = [0.0] * len(answers)
        filled = [i for i, answer in enumerate(answers) if answer]
        if not filled:
            return sums
        shared = _shared_length(contexts)
        filled.sort(key=lambda i: len(contexts[i]) + len(answers[i]))
        with torch.inference_mode():
            prefix = self._prefix_cache(contexts[filled[0]][:shared])
            for start in range(0, len(filled), self._batch_size):
                rows = filled[start : start + self._batch_size]
                batch = self._batch_log_probs(prefix, [(contexts[i][shared:], answers[i]) for i in rows])
                for i, log_prob in zip(rows, batch, strict=True):
                    sums[i] = log_prob
        return sums

    def _prefix_cache(self, prefix: list[int]) -> Any:
        """Keys and values of the tokens that every context begins with, for a batch of one."""
        cache = DynamicCache()
        if prefix:
            self._model.model(input_ids=torch.tensor([prefix]), past_key_values=cache, use_cache=True)
        return cache

    def _batch_log_probs(self, prefix: Any, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """One forward pass of ``B`` rows (context after the prefix, answer), padded on the right.

        Attention is causal, so what stands right of a row's end cannot reach it and no mask is needed.
        """
        width = max(len(context) + len(answer) for context, answer in rows) - 1
        inputs_BT = torch.zeros((len(rows), width), dtype=torch.long)
        targets_BT = torch.full((len(rows), width), -1)
        for row, (context, answer) in enumerate(rows):
            ids = torch.tensor(context + answer)
            inputs_BT[row, : len(ids) - 1] = ids[:-1]
            targets_BT[row, len(context) - 1 : len(ids) - 1] = ids[len(context) :]
        cache = copy.deepcopy(prefix)
        if cache.get_seq_length():
            cache.batch_repeat_interleave(len(rows))
        hidden_BTH = self._model.model(input_ids=inputs_BT, past_key_values=cache, use_cache=True).last_hidden_state
        is_answer_BT = targets_BT >= 0
        logits_NV = self._model.lm_head(hidden_BTH[is_answer_BT]).float()
        log_probs_N = -torch.nn.functional.cross_entropy(logits_NV, targets_BT[is_answer_BT], reduction="none")
        sums_B = torch.zeros(len(rows)).index_add_(0, is_answer_BT.nonzero()[:, 0], log_probs_N)
        return [float(value) for value in sums_B]


def _shared_length(contexts: Sequence[list[int]]) -> int:
    """How many first tokens all contexts share, leaving each at least the token that its answer is predicted from."""
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*contexts, strict=False)))
    return min(common, min(map(len, contexts)) - 1)
