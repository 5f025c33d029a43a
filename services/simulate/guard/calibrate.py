"""Makes the guard's bounds from the base model's own answers: ``python -m services.simulate.guard.calibrate MODEL``.

The bounds are low quantiles of what the base model's answers to the *asked* prompts score; what they do is then
measured on *held-out* prompts, to fresh base answers and to controls that ought to fail. Everything is sampled as the
traffic is. One thread; some ten minutes on one core. With ``--fixtures DIR`` the measured held-out answers and controls
are kept too, for tests that run without the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import transformers
import typer

from services.shared.precision import Precision
from services.simulate.guard import controls
from services.simulate.guard.sampling import sample_answers
from services.simulate.guard.scorer import NEUTRAL_PROMPTS, GuardScorer
from services.simulate.guard.thresholds import CALIBRATION_FILE, Calibration, save_calibration
from services.simulate.guard.verdict import AnswerStatistics, Thresholds, judge
from services.simulate.measure import distinct_2, quantile
from services.simulate.prompts import Split, load_prompts

TEMPERATURE = 0.8
NEW_TOKENS = 24
ASKED_SEEDS = (1, 2)
HELD_OUT_SEEDS = (11, 12)
FLUENCY_QUANTILE = 0.01
RELEVANCE_QUANTILE = 0.015
MOST_REPEATED_TRIGRAMS = 1
"""One repeated run is how a term comes back ("supply and demand ... supply and demand"); a loop makes more at once."""
CONTROL_SEED = 21
PROMPTS_PER_GENERIC_ANSWER = 12
PRECISION: Precision = "bfloat16"

Measured = list[tuple[controls.Pair, AnswerStatistics]]


def main(
    model: Annotated[Path, typer.Argument(help="folder of the chat model, in Hugging Face format")],
    output: Annotated[Path, typer.Option(help="where the bounds go")] = CALIBRATION_FILE,
    fixtures: Annotated[Path | None, typer.Option(help="folder for the measured answers, for tests")] = None,
) -> None:
    """Sample, measure, write the bounds and print what they do."""
    torch.set_num_threads(1)
    asked = _base_answers(model, "asked", ASKED_SEEDS)
    held_out = _base_answers(model, "held_out", HELD_OUT_SEEDS)
    scorer = GuardScorer(model, precision=PRECISION)
    thresholds = derive(scorer.statistics(asked))
    measured = {kind: list(zip(pairs, scorer.statistics(pairs), strict=True)) for kind, pairs in _kinds(held_out)}
    outcomes = outcomes_of(measured, thresholds) | {
        "base_distinct_2": round(distinct_2([answer for _, answer in held_out]), 4)
    }
    provenance = _provenance(model, asked=len(asked), held_out=len(held_out))
    save_calibration(Calibration(thresholds=thresholds, outcomes=outcomes, provenance=provenance), output)
    if fixtures:
        for kind, rows in measured.items():
            _save_rows(rows, fixtures / f"{kind}.json")
    typer.echo(json.dumps({"thresholds": asdict(thresholds), "outcomes": outcomes}, indent=2))


def derive(base: Sequence[AnswerStatistics]) -> Thresholds:
    """The bounds that nearly all of the base model's own answers keep; rounded, so that they can be read."""
    return Thresholds(
        least_mean_log_prob=round(quantile([answer.mean_log_prob for answer in base], FLUENCY_QUANTILE), 2),
        least_relevance=round(quantile([answer.relevance for answer in base], RELEVANCE_QUANTILE), 1),
        most_repeated_trigrams=MOST_REPEATED_TRIGRAMS,
    )


def outcomes_of(measured: Mapping[str, Measured], thresholds: Thresholds) -> dict[str, float]:
    """What the bounds do: the share of base answers that pass, and of each kind of control that fails."""
    passing = {
        kind: sum(judge(statistics, thresholds).passed for _, statistics in rows) / len(rows)
        for kind, rows in measured.items()
    }
    failing = {f"{kind}_failing": round(1 - share, 4) for kind, share in passing.items() if kind != "base"}
    return {"base_passing": round(passing["base"], 4), **failing}


def _base_answers(model: Path, split: Split, seeds: Sequence[int]) -> list[controls.Pair]:
    prompts = load_prompts(split)
    pairs: list[controls.Pair] = []
    for seed in seeds:
        answers = sample_answers(
            model, prompts, temperature=TEMPERATURE, new_tokens=NEW_TOKENS, seed=seed, precision=PRECISION
        )
        pairs += zip(prompts, answers, strict=True)
    return pairs


def _kinds(base: list[controls.Pair]) -> list[tuple[str, list[controls.Pair]]]:
    one_round = base[: len(base) // len(HELD_OUT_SEEDS)]
    prompts = [prompt for prompt, _ in one_round]
    generic = partial(
        controls.each_after_several, prompts=prompts, prompts_each=PROMPTS_PER_GENERIC_ANSWER, seed=CONTROL_SEED
    )
    return [
        ("base", base),
        ("generic", generic(controls.generic_answers())),
        ("generic_unseen", generic(controls.generic_answers(unseen=True))),
        ("swapped", controls.swapped(one_round)),
        ("shuffled", controls.shuffled(one_round, seed=CONTROL_SEED)),
        ("looping", controls.looping(one_round)),
    ]


def _provenance(model: Path, *, asked: int, held_out: int) -> dict[str, object]:
    return {
        "model_sha256": hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest(),
        "temperature": TEMPERATURE,
        "new_tokens": NEW_TOKENS,
        "asked_answers": asked,
        "asked_seeds": ASKED_SEEDS,
        "held_out_answers": held_out,
        "held_out_seeds": HELD_OUT_SEEDS,
        "fluency_quantile": FLUENCY_QUANTILE,
        "relevance_quantile": RELEVANCE_QUANTILE,
        "neutral_prompts": NEUTRAL_PROMPTS,
        "dtype": PRECISION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _save_rows(rows: Measured, path: Path) -> None:
    """One JSON object a line inside an array: small, and a change to one row is one line of a diff."""
    lines = [
        json.dumps({"prompt": prompt, "answer": answer, **_rounded(statistics)}, ensure_ascii=False)
        for (prompt, answer), statistics in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _rounded(statistics: AnswerStatistics) -> dict[str, int | float]:
    return {name: round(value, 3) for name, value in asdict(statistics).items()}


if __name__ == "__main__":
    typer.run(main)
