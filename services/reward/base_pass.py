"""The adapter-off pass on a Hugging Face causal language model.

Answers run in batches of like length, padded on the right: attention is causal, so a real token never sees padding, and
padded equals unpadded. The chat template's beginning (its system prompt) is the same in nearly every chat; its keys and
values are computed once, at start, and every answer that begins so goes on from there. Only response positions get
logits.

Shapes: `B` answers, `N` tokens, `R` response tokens of a batch, `D` hidden size, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from services.reward.base_model import Answer, PassResult
from services.shared.domain.rollout import ChatMessage
from services.shared.reward_heads.features import feature_count, feature_layout, middle_layers

_LOGIT_ROWS = 512
"""Response positions that get logits at a time: bounds the memory of [R, V]."""
_FP16_MAX = 65_504.0


class BasePass:
    """The frozen base model of the policy."""

    def __init__(
        self, model: Any, tokenizer: Any, *, digest: str, max_batch: int = 16, max_batch_tokens: int = 4096
    ) -> None:
        """Takes over `model`, which must be a causal language model with a body (`base_model`) and `lm_head`."""
        self._model = model.eval()
        self._body = model.base_model
        self._tokenizer = tokenizer
        self._digest = digest
        self._max_batch = max_batch
        self._max_batch_tokens = max_batch_tokens
        self._middle = middle_layers(int(model.config.num_hidden_layers))
        self._hidden_size = int(model.config.hidden_size)
        self._prefix = self._template_prefix()
        self._prefix_cache = self._read_prefix()

    @classmethod
    def from_directory(
        cls, directory: Path, *, dtype: Literal["float32", "bfloat16"], device: str, digest: str, max_batch: int
    ) -> BasePass:
        """Loads a model in Hugging Face format from a folder; nothing is fetched from a network."""
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=getattr(torch, dtype), attn_implementation="sdpa", local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        return cls(cast(Any, model).to(device), tokenizer, digest=digest, max_batch=max_batch)

    @property
    def digest(self) -> str:
        """sha256 of the base model's files."""
        return self._digest

    @property
    def feature_layout(self) -> str:
        """Means over the response of the embeddings and of two middle layers."""
        return feature_layout(self._hidden_size, int(self._model.config.num_hidden_layers))

    @property
    def feature_count(self) -> int:
        """Three times the hidden size."""
        return feature_count(self._hidden_size)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return int(self._model.config.vocab_size)

    @property
    def context_tokens(self) -> int:
        """Positions that the model knows."""
        return int(self._model.config.max_position_embeddings)

    def encode(self, messages: Sequence[ChatMessage], response: str) -> Answer:
        """Renders a chat by the tokenizer's template; the response gets no end token."""
        return Answer(
            prompt_token_ids=self._render([{"role": str(turn.role), "content": turn.content} for turn in messages]),
            response_token_ids=tuple(self._tokenizer(response, add_special_tokens=False)["input_ids"]),
        )

    @torch.inference_mode()
    def run(self, answers: Sequence[Answer]) -> list[PassResult]:
        """Batches of like length, results in the order of `answers`."""
        results: dict[int, PassResult] = {}
        for rows, shared in self._batches(answers):
            batch = [answers[row] for row in rows]
            results.update(zip(rows, self._run_batch(batch, shared), strict=True))
        return [results[row] for row in range(len(answers))]

    def _batches(self, answers: Sequence[Answer]) -> Iterator[tuple[list[int], bool]]:
        """Rows that run together, and whether they go on from the template's prefix."""
        prefix = self._prefix
        for shared in (True, False):
            rows = [row for row, answer in enumerate(answers) if self._shares_prefix(answer) is shared]
            rows.sort(key=lambda row: answers[row].tokens)
            while rows:
                size = min(self._max_batch, len(rows))
                while size > 1 and size * (answers[rows[size - 1]].tokens - shared * len(prefix)) > (
                    self._max_batch_tokens
                ):
                    size -= 1
                yield rows[:size], shared
                rows = rows[size:]

    def _shares_prefix(self, answer: Answer) -> bool:
        size = len(self._prefix)
        return 0 < size < len(answer.prompt_token_ids) and answer.prompt_token_ids[:size] == self._prefix

    def _run_batch(self, batch: Sequence[Answer], shared: bool) -> list[PassResult]:
        skip = len(self._prefix) if shared else 0
        rows = [(answer.prompt_token_ids + answer.response_token_ids)[skip:] for answer in batch]
        width = max(map(len, rows))
        input_BN = torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=self._model.device)
        out = self._body(
            input_ids=input_BN,
            past_key_values=self._prefix_for(len(batch)) if shared else None,
            use_cache=shared,
            output_hidden_states=True,
        )
        starts = [len(answer.prompt_token_ids) - skip for answer in batch]
        ends = [len(row) for row in rows]
        final_RD = torch.cat(
            [
                out.last_hidden_state[b, start - 1 : end - 1]
                for b, (start, end) in enumerate(zip(starts, ends, strict=True))
            ]
        )
        log_probs_R = self._log_probs(final_RD, batch)
        low, high = self._middle
        parts = [out.hidden_states[layer] for layer in (0, low, high)]
        results = []
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            features = torch.cat([part[row, start:end].float().mean(dim=0) for part in parts])
            half = features.clamp(-_FP16_MAX, _FP16_MAX).half().cpu().numpy().astype("<f2")
            taken, log_probs_R = log_probs_R[: end - start], log_probs_R[end - start :]
            results.append(PassResult(reference_log_probs=tuple(taken.tolist()), features=half.tobytes()))
        return results

    def _log_probs(self, final_RD: Tensor, batch: Sequence[Answer]) -> Tensor:
        """[R] log-probs of the response tokens, each answer at its own temperature."""
        device = final_RD.device
        target_R = torch.tensor([token for answer in batch for token in answer.response_token_ids], device=device)
        lengths = torch.tensor([len(answer.response_token_ids) for answer in batch], device=device)
        divisor_R = torch.tensor([answer.divisor for answer in batch], device=device).repeat_interleave(lengths)
        parts = []
        for rows in torch.split(torch.arange(len(target_R), device=device), _LOGIT_ROWS):
            logits_RV = self._model.lm_head(final_RD[rows]).float() / divisor_R[rows, None]
            parts.append(-functional.cross_entropy(logits_RV, target_R[rows], reduction="none"))
        return torch.cat(parts).cpu()

    def _render(self, messages: list[dict[str, str]]) -> tuple[int, ...]:
        encoded = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        return tuple(encoded["input_ids"])

    def _template_prefix(self) -> tuple[int, ...]:
        """Tokens with which every chat begins that brings no system prompt of its own."""
        one, other = (self._render([{"role": "user", "content": text}]) for text in ("a", "1"))
        same = [a == b for a, b in zip(one, other, strict=False)]
        return one[: same.index(False)] if False in same else ()

    @torch.inference_mode()
    def _read_prefix(self) -> DynamicCache:
        cache = DynamicCache()
        if self._prefix:
            input_BN = torch.tensor([self._prefix], device=self._model.device)
            self._body(input_ids=input_BN, past_key_values=cache, use_cache=True)
        return cache

    def _prefix_for(self, rows: int) -> DynamicCache:
        """The prefix's keys and values for so many rows; the pass appends to it, so each pass gets its own."""
        layers = [(layer.keys, layer.values) for layer in cast(Any, self._prefix_cache).layers]
        return DynamicCache(
            [(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in layers]
        )
