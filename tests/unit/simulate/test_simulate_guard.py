"""The guard's judgement, and what its committed bounds do to answers that the base model measured."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from services.simulate.guard import AnswerStatistics, Fault, Thresholds, judge, load_calibration
from services.simulate.guard.controls import generic_answers, looping, shuffled, swapped
from services.simulate.guard.thresholds import save_calibration
from services.simulate.guard.verdict import repeated_trigrams
from services.simulate.measure import distinct_2
from services.simulate.prompts import load_prompts
from tests.unit.simulate.guard_fixtures import load_measured

BOUNDS = Thresholds(least_mean_log_prob=-3.0, least_relevance=5.0, most_repeated_trigrams=1)
GOOD = AnswerStatistics(tokens=10, log_prob=-20.0, neutral_log_prob=-40.0, repeated_trigrams=0)


def _share_passing(kind: str) -> float:
    thresholds = load_calibration().thresholds
    measured = load_measured(kind)
    return sum(judge(row.statistics, thresholds).passed for row in measured) / len(measured)


def test_nearly_all_of_the_base_models_own_answers_pass() -> None:
    measured = load_measured("base")
    assert len(measured) >= 200
    assert {row.prompt for row in measured} == set(load_prompts("held_out"))
    assert _share_passing("base") >= 0.95


@pytest.mark.parametrize("unseen", [False, True])
def test_the_same_friendliness_to_every_prompt_does_not_pass(unseen: bool) -> None:
    answers, kind = generic_answers(unseen=unseen), "generic_unseen" if unseen else "generic"
    measured = load_measured(kind)
    assert {row.answer for row in measured} == set(answers)
    assert len(answers) >= 20 and len(measured) >= 10 * len(answers)
    assert _share_passing(kind) <= 0.05


@pytest.mark.parametrize("unseen", [False, True])
def test_no_single_generic_answer_gets_through_often(unseen: bool) -> None:
    thresholds = load_calibration().thresholds
    measured = load_measured("generic_unseen" if unseen else "generic")
    for answer in generic_answers(unseen=unseen):
        rows = [row for row in measured if row.answer == answer]
        passing = sum(judge(row.statistics, thresholds).passed for row in rows)
        assert passing / len(rows) <= 0.25, answer


@pytest.mark.parametrize(("kind", "most_passing"), [("swapped", 0.05), ("shuffled", 0.10), ("looping", 0.0)])
def test_answers_that_are_wrong_in_one_way_do_not_pass(kind: str, most_passing: float) -> None:
    assert _share_passing(kind) <= most_passing


def test_measured_loops_are_what_the_code_counts_today() -> None:
    for kind in ("base", "generic", "generic_unseen", "swapped", "shuffled", "looping"):
        for row in load_measured(kind):
            assert row.statistics.repeated_trigrams == repeated_trigrams(row.answer), row


def test_no_generic_answer_is_on_both_lists() -> None:
    assert set(generic_answers()).isdisjoint(generic_answers(unseen=True))


def test_the_committed_outcomes_are_those_of_the_committed_answers() -> None:
    outcomes = load_calibration().outcomes
    assert outcomes["base_passing"] == pytest.approx(_share_passing("base"), abs=0.005)
    assert outcomes["generic_failing"] == pytest.approx(1 - _share_passing("generic"), abs=0.005)
    assert outcomes["base_distinct_2"] == pytest.approx(
        distinct_2([row.answer for row in load_measured("base")]), abs=1e-4
    )


def test_the_calibration_says_where_it_comes_from() -> None:
    provenance = load_calibration().provenance
    assert len(str(provenance["model_sha256"])) == 64
    assert provenance["asked_answers"] == 800
    assert (provenance["temperature"], provenance["new_tokens"]) == (0.8, 24)


@pytest.mark.parametrize(
    ("statistics", "faults"),
    [
        (GOOD, ()),
        (replace(GOOD, tokens=0), (Fault.EMPTY,)),
        (replace(GOOD, log_prob=-31.0, neutral_log_prob=-60.0), (Fault.NOT_FLUENT,)),
        (replace(GOOD, neutral_log_prob=-24.0), (Fault.OFF_PROMPT,)),
        (replace(GOOD, repeated_trigrams=2), (Fault.LOOPING,)),
        (
            replace(GOOD, log_prob=-31.0, neutral_log_prob=-10.0, repeated_trigrams=9),
            (Fault.NOT_FLUENT, Fault.OFF_PROMPT, Fault.LOOPING),
        ),
        (AnswerStatistics(tokens=10, log_prob=-30.0, neutral_log_prob=-35.0, repeated_trigrams=1), ()),
    ],
)
def test_a_verdict_names_every_fault_and_a_bound_itself_passes(
    statistics: AnswerStatistics, faults: tuple[Fault, ...]
) -> None:
    verdict = judge(statistics, BOUNDS)
    assert verdict.faults == faults
    assert verdict.passed == (not faults)


@pytest.mark.parametrize(
    ("answer", "repeats"),
    [("", 0), ("you can", 0), ("Supply and demand: supply and demand", 1), ("you can you can you can you can", 4)],
)
def test_repeated_trigrams(answer: str, repeats: int) -> None:
    assert repeated_trigrams(answer) == repeats


def test_controls_break_one_thing_each() -> None:
    pairs = [("p", "a b c d e"), ("q", "f g h i j"), ("r", "k l m n o")]
    assert [answer for _, answer in swapped(pairs)] == ["f g h i j", "k l m n o", "a b c d e"]
    assert [sorted(answer.split()) for _, answer in shuffled(pairs, seed=1)] == [answer.split() for _, answer in pairs]
    assert looping(pairs)[0] == ("p", "a b c d a b c d a b c d a b c d")


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    save_calibration(load_calibration(), tmp_path / "calibration.json")
    assert load_calibration(tmp_path / "calibration.json") == load_calibration()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"thresholds": {"a": 1}, "outcomes": {}, "provenance": {}}'])
def test_a_file_that_is_no_calibration_says_how_to_make_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"services\.simulate\.guard\.calibrate"):
        load_calibration(path)


def test_judging_needs_no_torch() -> None:
    program = "import sys, services.simulate.guard, services.simulate.measure; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )
