"""The demo clears its own folder and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.shared.domain.errors import Misconfigured
from services.simulate.demo import clear_folder


@pytest.mark.parametrize("left", [(), ("logs/learner.log",), ("journal.jsonl", "report.json")])
def test_what_a_run_has_left_goes(tmp_path: Path, left: tuple[str, ...]) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    for name in left:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    clear_folder(folder)
    assert not folder.exists()
    clear_folder(folder)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(Misconfigured, match="empty folder"):
        clear_folder(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
