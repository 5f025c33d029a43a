"""The demo clears its own folder and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.shared.domain.errors import Misconfigured
from services.simulate.demo import MARKER, empty_folder


def test_what_a_run_has_left_goes(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "demo"
    for _ in range(2):
        empty_folder(folder)
        assert [path.name for path in folder.iterdir()] == [MARKER]
        (folder / "logs").mkdir()
        (folder / "logs" / "learner.log").touch()
        (folder / "store.db").touch()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    empty_folder(tmp_path)
    assert (tmp_path / MARKER).is_file()


@pytest.mark.parametrize("name", ["thesis.txt", "logs/thesis.txt", "store.db", "journal.jsonl", "secrets/service.json"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    """A project, and the data of `thumbloop up`, which look like a demo's."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("years of work")
    with pytest.raises(Misconfigured, match="--data-dir"):
        empty_folder(tmp_path)
    assert path.read_text() == "years of work" and not (tmp_path / MARKER).exists()
    with pytest.raises(Misconfigured):
        empty_folder(path)
