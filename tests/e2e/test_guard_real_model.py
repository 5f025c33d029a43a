"""The guard on the real chat model.

Plan: measure a part of the committed answers again, and time it. Pass: sums agree with the committed ones (two dtypes,
two machines), the same answers pass and fail, and measuring is quick enough to be part of a demo.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.shared.precision import Precision
from services.simulate.guard import judge, load_calibration
from services.simulate.guard.sampling import sample_answers
from services.simulate.guard.scorer import GuardScorer
from services.simulate.prompts import load_prompts
from tests.unit.simulate.guard_fixtures import MeasuredAnswer, load_measured

SUM_TOLERANCE_NATS = 1.5  # of 24 tokens in bfloat16; what the guard tells apart lies tens of nats apart
MODEL = Path("~/.cache/thumbloop/models/SmolLM2-135M-Instruct").expanduser()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scorer() -> GuardScorer:
    return GuardScorer(MODEL)


def _sample(kind: str, n: int) -> list[MeasuredAnswer]:
    rows = load_measured(kind)
    return rows[:: len(rows) // n][:n]


def _pairs(rows: list[MeasuredAnswer]) -> list[tuple[str, str]]:
    return [(row.prompt, row.answer) for row in rows]


@pytest.mark.parametrize(("precision", "n"), [("bfloat16", 4), ("float32", 24)])  # fewer where it may be emulated
def test_sums_agree_with_the_committed_ones(precision: Precision, n: int) -> None:
    rows = _sample("base", n)
    again = GuardScorer(MODEL, precision=precision, batch_size=7).statistics(_pairs(rows))
    for row, statistics in zip(rows, again, strict=True):
        assert statistics.tokens == row.statistics.tokens
        assert statistics.repeated_trigrams == row.statistics.repeated_trigrams
        assert statistics.log_prob == pytest.approx(row.statistics.log_prob, abs=SUM_TOLERANCE_NATS)
        assert statistics.neutral_log_prob == pytest.approx(row.statistics.neutral_log_prob, abs=SUM_TOLERANCE_NATS)


def test_base_answers_pass_and_generic_ones_do_not(scorer: GuardScorer) -> None:
    thresholds = load_calibration().thresholds
    base, generic = _sample("base", 48), _sample("generic", 48)
    verdicts = [judge(statistics, thresholds).passed for statistics in scorer.statistics(_pairs(base + generic))]
    assert sum(verdicts[:48]) / 48 >= 0.9
    assert sum(verdicts[48:]) / 48 <= 0.1


def test_a_shared_prefix_changes_nothing() -> None:
    """With one pair the whole context but a token is the shared prefix; with two it is the system prompt."""
    scorer = GuardScorer(MODEL, precision="float32")
    pairs = _pairs(_sample("base", 2))
    together = scorer.statistics(pairs)
    apart = [scorer.statistics([pair])[0] for pair in pairs]
    for one, other in zip(together, apart, strict=True):
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-3)


def test_an_empty_answer_has_no_tokens_and_fails(scorer: GuardScorer) -> None:
    (statistics,) = scorer.statistics([("How do I poach an egg?", "  ")])
    assert statistics.tokens == 0
    assert not judge(statistics, load_calibration().thresholds).passed
    assert scorer.statistics([]) == []


def test_sampling_is_seeded() -> None:
    prompts = load_prompts("held_out")[:3]
    first, second = (sample_answers(MODEL, prompts, temperature=0.8, new_tokens=6, seed=7) for _ in range(2))
    assert first == second and all(first)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="convert the chat model"):
        GuardScorer(tmp_path)
