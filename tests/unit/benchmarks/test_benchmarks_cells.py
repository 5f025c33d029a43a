"""Cells of a long benchmark count for the code and the protocol that they were measured with, and for no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.cells import Cells, Figures

PROTOCOL = {"count": 100.0, "slice": 10.0}


class Measured:
    """Counts how often something was measured."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Figures:
        self.times += 1
        return {"per_s": float(self.times)}


@pytest.mark.parametrize(
    ("code", "protocol", "times"),
    [
        pytest.param("abc1234", PROTOCOL, 1, id="the same"),
        pytest.param("def5678", PROTOCOL, 2, id="other code"),
        pytest.param("abc1234", PROTOCOL | {"slice": 20.0}, 2, id="another protocol"),
    ],
)
def test_a_cell_is_measured_again_unless_code_and_protocol_are_its_own(
    tmp_path: Path, code: str, protocol: dict[str, float], times: int
) -> None:
    measured = Measured()
    Cells(tmp_path, code="abc1234").get("sqlite-1000", PROTOCOL, measured)

    cell = Cells(tmp_path, code=code).get("sqlite-1000", protocol, measured)

    assert measured.times == times
    assert (cell.code, cell.protocol, cell.figures) == (code, protocol, {"per_s": times})


def test_a_cell_of_a_changed_working_tree_is_measured_again(tmp_path: Path) -> None:
    measured = Measured()
    cells = Cells(tmp_path, code="abc1234-changed")
    cells.get("sqlite-1000", PROTOCOL, measured)
    cells.get("sqlite-1000", PROTOCOL, measured)
    assert measured.times == 2


def test_a_file_of_another_form_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / "sqlite-1000.json").write_text('{"rate_ratio": 0.9}', encoding="utf-8")
    measured = Measured()
    assert Cells(tmp_path, code="abc1234").get("sqlite-1000", PROTOCOL, measured).figures == {"per_s": 1.0}
