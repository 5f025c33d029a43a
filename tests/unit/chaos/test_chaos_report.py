"""Figures are numbers, aims are those of the form, and what is kept is of the full form and ended well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.chaos.blows import Blow
from tests.benchmarks.chaos.kept import KeptParts
from tests.benchmarks.chaos.links import LINKS
from tests.benchmarks.chaos.logs import Repairs
from tests.benchmarks.chaos.parts import PARTS, Brought, Options
from tests.benchmarks.chaos.report import Form, aims, embedded_figures, main_figures, missed
from tests.benchmarks.chaos.verdict import Verdict
from tests.benchmarks.chaos.world import BROKER, VICTIMS
from tests.unit.chaos.outcomes import kills, outcome

FULL = Options(form=Form(), seed=0, clients=6, within_s=60.0)


def test_figures_are_numbers() -> None:
    """A boolean would stand as `true` in the file."""
    stalled = outcome(stalled="no policy was released", exit_codes={"gateway": -9})
    for figures in (main_figures(stalled, seed=0), embedded_figures(stalled)):
        assert {type(value) for value in figures.values()} <= {int, float}
    assert main_figures(stalled, seed=0)["stalls"] == 1
    assert embedded_figures(stalled)["embedded_stalls"] == 1


def test_a_room_that_did_not_drain_is_a_violation() -> None:
    killed = outcome(exit_codes={"gateway": 0, "learner": -9})
    assert killed.violations == ["did not drain: learner ended with -9"]
    assert "failed_drains is 1, wanted == 0" in missed(main_figures(killed, seed=0), aims(Form(), 3))
    assert "embedded_failed_drains is 1, wanted == 0" in missed(embedded_figures(killed), aims(Form(), 3))


def test_faults_are_counted_by_link() -> None:
    cut = Blow(what="cut", target="", at=0.0, until=1.0)
    figures = main_figures(outcome(blows=[replace(cut, target=link) for link in (*LINKS, LINKS[0])]), seed=0)
    assert [figures[f"network_faults_of_{link}"] for link in LINKS] == [2] + [1] * (len(LINKS) - 1)
    assert figures["network_faults_fewest_of_a_link"] == 1
    assert "network_links_in_use is 0, wanted == 6" in missed(figures, aims(Form(), 3))
    assert "network_faults_fewest_of_a_link is 1, wanted >= 10" in missed(figures, aims(Form(), 3))


def test_the_embedded_part_must_have_hit_the_broker_and_have_repaired_something() -> None:
    of_all = kills(*VICTIMS * 4)
    found = missed(embedded_figures(outcome(blows=of_all)), aims(Form(), 3))
    assert "embedded_kills_of_broker is 4, wanted >= 20" in found
    assert "embedded_lost_tails is 0, wanted >= 1" in found
    assert "embedded_resent is 0, wanted >= 1" in found
    assert "embedded_acknowledged is 10, wanted >= 1000" in found
    repairs = Repairs(lost_tails=1, sent_again=1)
    enough = outcome(acknowledged=1000, stored=1000, blows=kills(*[BROKER] * 20, *VICTIMS * 3), repairs=repairs)
    rest = missed(embedded_figures(enough), aims(Form(), 3))
    assert [line.split()[0] for line in rest] == ["embedded_releases", "embedded_experiences_trained"]


@pytest.mark.parametrize(
    "form", [Form(kills=8), Form(embedded_kills=5), Form(model="scripted")], ids=["kills", "embedded", "scripted"]
)
def test_a_smaller_form_is_not_the_full_one(form: Form) -> None:
    assert not form.is_full
    assert Form().is_full


def test_figures_and_orphans_are_written_when_all_parts_have_ended_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.benchmarks.chaos.kept.write_figures", written(tmp_path))
    ran: list[str] = []

    def kept() -> KeptParts:
        return KeptParts(tmp_path, code="abc1234", options=FULL, again=False)

    def run(part: str) -> Brought:
        ran.append(part)
        return Brought(figures={f"{part}_figure": 1.0}, orphans=[f"f of {part} (broken off): killed at 1.00"])

    first = kept()
    for part in PARTS[:-1]:
        first.get(part, lambda part=part: run(part))  # type: ignore[misc]  # bound at once
    assert first.write({}) == []
    with pytest.raises(RuntimeError):
        first.get(PARTS[-1], failing)
    assert first.write({}) == []

    second = kept()
    for part in PARTS:
        second.get(part, lambda part=part: run(part))  # type: ignore[misc]  # bound at once
    figures, orphans = second.write({})
    assert ran == list(PARTS)
    assert json.loads(figures.read_text()) == {f"{part}_figure": 1.0 for part in PARTS}
    assert orphans.read_text().splitlines() == [f"{part}: f of {part} (broken off): killed at 1.00" for part in PARTS]


def test_a_verdicts_findings_are_all_counted() -> None:
    red = Verdict(lineage_differs=["p1"], orphans_unexplained=["f1"], orphans_of_whole_answers=1)
    figures = main_figures(outcome(verdict=red), seed=0)
    assert (figures["lineage_differs"], figures["orphans_unexplained"], figures["orphans_of_whole_answers"]) == (
        1,
        1,
        1,
    )


def failing() -> Brought:
    raise RuntimeError


def written(folder: Path):  # type: ignore[no-untyped-def]  # stands in for `write_figures`
    def write(name: str, figures: dict[str, float], aims: dict[str, str], *, seconds: float) -> Path:
        path = folder / f"{name}.json"
        path.write_text(json.dumps(figures))
        return path

    return write
