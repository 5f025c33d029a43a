"""Draws the tokens of a decode step, each request by its own sampling parameters, and stamps them.

It runs inside the decode step as continuous batching's only logits processor, and leaves scores in which the drawn
token is the likeliest, so that the loop's arg-max takes it. Drawing here rather than there means: any mix of parameters
(a temperature of 0 too) costs one pass and cannot raise; filters cost only the rows that ask for them; seeds are per
request; log-probs are kept before and after the filters; and the version is stamped where the token is drawn.

Shapes: `N` requests of the step, `V` vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from services.generator.engines.interface import EngineToken
from services.shared.domain.events import Clock
from services.shared.domain.rollout import Sampling

CHOSEN: Final = 1.0


class Trace:
    """What was drawn for one request. The serving thread appends, the event loop reads."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.tokens: list[EngineToken] = []
        self.delivered = 0
        self.random: torch.Generator | None = None
        self.failure = ""
        if sampling.seed is not None:
            self.random = torch.Generator().manual_seed(sampling.seed % 2**63)


class TokenSampler(ContinuousBatchingLogitsProcessor):
    """One an engine. `traces` may be changed from another thread; the rest belongs to the serving thread."""

    supported_kwargs: dict[str, type] = {}  # noqa: RUF012 (read by the library)
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, *, clock: Clock, version: Callable[[], str]) -> None:
        self._clock = clock
        self._version = version
        self._traces: dict[str, Trace] = {}
        self._lock = threading.Lock()
        self._step: list[Trace | None] = []

    def watch(self, request_id: str, sampling: Sampling) -> Trace:
        """Begins a request's trace."""
        with self._lock:
            trace = self._traces[request_id] = Trace(sampling)
            return trace

    def forget(self, request_id: str) -> None:
        """Ends it."""
        with self._lock:
            self._traces.pop(request_id, None)

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        """The library's place for per-request numbers; there are none, parameters stay on the host."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
        """Learns which requests the step's rows belong to, in order."""
        with self._lock:
            self._step = [self._traces.get(request.state.request_id) for request in requests_with_new_token]
        return torch.zeros(len(self._step), dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        """Raw logits in, scores whose greatest value marks each row's token out. Rows past the step's requests are
        prompts that are not read to their end yet; there may be no others."""
        if not self._step:
            return scores
        traces = [trace or _NOBODY for trace in self._step]
        drawn_N, log_prob_N, raw_N = draw_tokens(
            scores[: len(traces)], [trace.sampling for trace in traces], [trace.random for trace in traces]
        )
        version, now = self._version(), self._clock()
        for trace, token, log_prob, raw in zip(
            self._step, drawn_N.tolist(), log_prob_N.tolist(), raw_N.tolist(), strict=True
        ):
            if trace is None or trace.failure:
                continue
            if not log_prob <= 0.0 or log_prob == -float("inf"):
                trace.failure = "the model's logits are not finite"
                continue
            trace.tokens.append(
                EngineToken(token_id=token, log_prob=log_prob, raw_log_prob=raw, policy_version=version, time=now)
            )
        return torch.zeros_like(scores).scatter_(1, drawn_N.to(scores.device)[:, None], CHOSEN)


_NOBODY = Trace(Sampling(temperature=0.0, max_tokens=1))
"""Whose request was given up while its step was being prepared."""


@torch.no_grad()
def draw_tokens(
    logits_NV: Tensor, samplings: list[Sampling], randoms: list[torch.Generator | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """One token a row by inverse transform sampling, on any device.

    Returns, on the CPU, token ids [N], their log-probs under the distribution sampled from [N], and under the raw
    model at temperature 1 [N]. Temperature first, then top-k, then top-p, as everywhere. Rows of logits that are not
    finite give a log-prob of NaN and some token within the vocabulary.
    """
    device = logits_NV.device
    raw_NV = logits_NV.float()
    temperatures = [sampling.temperature or 1.0 for sampling in samplings]
    scaled_NV = raw_NV / torch.tensor(temperatures, device=device)[:, None]
    filtered = [row for row, sampling in enumerate(samplings) if _filters(sampling)]
    if filtered:
        rows = torch.tensor(filtered, device=device)
        scaled_NV[rows] = _filter(scaled_NV[rows], [samplings[row] for row in filtered])
    log_total_N = scaled_NV.logsumexp(dim=-1)
    cumulative_NV = (scaled_NV - log_total_N[:, None]).exp_().cumsum(dim=-1, dtype=torch.float64)
    uniform_N = torch.stack([torch.rand((), dtype=torch.float64, generator=random) for random in randoms]).to(device)
    # Strictly greater than the sum before it: a token of probability 0 is never drawn.
    aim_N1 = (uniform_N * cumulative_NV[:, -1])[:, None]
    drawn_N1 = torch.searchsorted(cumulative_NV, aim_N1, right=True).clamp_(max=logits_NV.shape[-1] - 1)
    log_prob_N = scaled_NV.gather(1, drawn_N1)[:, 0] - log_total_N
    raw_N = raw_NV.gather(1, drawn_N1)[:, 0] - raw_NV.logsumexp(dim=-1)
    # Rounding may leave a sure token a hair above 0.
    return drawn_N1[:, 0].cpu(), log_prob_N.clamp(max=0.0).cpu(), raw_N.clamp(max=0.0).cpu()


def _filters(sampling: Sampling) -> bool:
    return sampling.temperature == 0 or sampling.top_k > 0 or sampling.top_p < 1


def _filter(scaled_RV: Tensor, samplings: list[Sampling]) -> Tensor:
    """The rows with -inf where top-k, then top-p, remove a token. The likeliest token always stays."""
    vocabulary = scaled_RV.shape[-1]
    ordered_RV, order_RV = scaled_RV.sort(dim=-1, descending=True, stable=True)
    keep = [1 if sampling.temperature == 0 else min(sampling.top_k or vocabulary, vocabulary) for sampling in samplings]
    rank_V = torch.arange(vocabulary, device=scaled_RV.device)
    ordered_RV = ordered_RV.masked_fill(rank_V >= torch.tensor(keep, device=scaled_RV.device)[:, None], -float("inf"))
    probability_RV = ordered_RV.softmax(dim=-1)
    mass_before_RV = probability_RV.cumsum(dim=-1) - probability_RV
    top_p_R1 = torch.tensor([sampling.top_p for sampling in samplings], device=scaled_RV.device)[:, None]
    removed_RV = (mass_before_RV >= top_p_R1) & (top_p_R1 < 1) & (rank_V > 0)
    ordered_RV = ordered_RV.masked_fill(removed_RV, -float("inf"))
    return torch.empty_like(scaled_RV).scatter_(1, order_RV, ordered_RV)
