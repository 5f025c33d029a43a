from __future__ import annotations

import pytest
import torch

from services.generator.engines.token_sampler import draw_tokens
from services.shared.domain.rollout import Sampling

V = 50


def logits() -> torch.Tensor:
    return torch.randn(V, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, max_tokens=1),
        Sampling(temperature=0.5, max_tokens=1),
        Sampling(temperature=1.3, top_k=7, max_tokens=1),
        Sampling(temperature=1.0, top_p=0.6, max_tokens=1),
        Sampling(temperature=0.8, top_k=20, top_p=0.9, max_tokens=1),
    ],
)
def test_frequencies_match_the_log_probs_that_are_told(sampling: Sampling) -> None:
    """20,000 draws: each token's share lies within 5 standard errors of its told probability; together they are all."""
    draws = 20_000
    tokens, log_probs, raw = draw_tokens(logits().expand(draws, V), [sampling] * draws, [None] * draws)
    told = {int(token): float(value) for token, value in zip(tokens, log_probs, strict=True)}
    shares = torch.bincount(tokens, minlength=V) / draws
    for token, value in told.items():
        probability = torch.tensor(value).exp().item()
        assert abs(shares[token].item() - probability) < 5 * (probability * (1 - probability) / draws) ** 0.5 + 1e-4
    assert sum(torch.tensor(value).exp().item() for value in told.values()) == pytest.approx(1.0, abs=0.01)
    true_raw = logits().log_softmax(dim=-1)[tokens]
    assert torch.allclose(raw, true_raw, atol=1e-5)


def test_the_nucleus_is_the_smallest_that_holds_top_p() -> None:
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    for top_p, kept in ((0.39, 1), (0.41, 2), (0.7001, 3), (0.95, 4)):
        sampling = Sampling(temperature=1.0, top_p=top_p, max_tokens=1)
        tokens, log_probs, _ = draw_tokens(probabilities.log().expand(2000, 4), [sampling] * 2000, [None] * 2000)
        assert set(tokens.tolist()) == set(range(kept))
        first = log_probs[tokens == 0][0].exp().item()
        assert first == pytest.approx(0.4 / probabilities[:kept].sum().item(), abs=1e-4)


def test_rows_keep_to_their_own_parameters() -> None:
    samplings = [Sampling(temperature=0.0, max_tokens=1), Sampling(temperature=2.0, max_tokens=1)] * 200
    tokens, log_probs, _ = draw_tokens(logits().expand(400, V), samplings, [None] * 400)
    assert set(tokens[::2].tolist()) == {int(logits().argmax())}
    assert log_probs[::2].eq(0).all()
    assert len(set(tokens[1::2].tolist())) > 10


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    row = torch.full((V,), -float("inf"))
    row[[3, 30]] = 0.0
    tokens, _, _ = draw_tokens(row.expand(2000, V), [Sampling(temperature=1.0, max_tokens=1)] * 2000, [None] * 2000)
    assert set(tokens.tolist()) == {3, 30}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_spoil_their_own_row_alone(value: float) -> None:
    rows = logits().repeat(2, 1)
    rows[0, 5] = value
    tokens, log_probs, _ = draw_tokens(rows, [Sampling(temperature=1.0, max_tokens=1)] * 2, [None] * 2)
    assert not log_probs[0].isfinite() and log_probs[1].isfinite()
    assert 0 <= int(tokens[0]) < V
