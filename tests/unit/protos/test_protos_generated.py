"""What is committed under protos/gen is what `make proto` would write."""

from __future__ import annotations

import filecmp
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).resolve().parents[3] / "protos"


def files_below(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, PROTOS / "generate.py", "--output", tmp_path], check=True, timeout=120)
    fresh, committed = tmp_path / "thumbloop", PROTOS / "gen" / "thumbloop"
    assert files_below(fresh) == files_below(committed)
    _, different, unreadable = filecmp.cmpfiles(fresh, committed, [str(p) for p in files_below(fresh)], shallow=False)
    assert different == []
    assert unreadable == []
