"""Cells of a long benchmark, kept on disk so that a run that was stopped goes on where it was.

A cell counts only for the code and the protocol that it was measured with; of any other it is measured again.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

Figures = dict[str, float]
MEASURED_CODE = ("services", "tests/benchmarks", "tests/support", "pyproject.toml")
_CHANGED = "-changed"
"""Ends the code's name where the working tree differs from its commit."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What was measured, of what, and how."""

    code: str
    """The commit that last changed `MEASURED_CODE`."""
    protocol: Mapping[str, float]
    seconds: float
    figures: Figures


class Cells:
    """One file a cell in a folder."""

    def __init__(self, folder: Path, *, code: str) -> None:
        self._folder = folder
        self._code = code
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, protocol: Mapping[str, float], measure: Callable[[], Figures]) -> Cell:
        """The cell of this code and protocol, measured now unless it lies there."""
        path = self._folder / f"{name}.json"
        kept = _read(path)
        if kept is not None and self._counts(kept, protocol):
            return kept
        begun = time.monotonic()
        figures = measure()
        cell = Cell(code=self._code, protocol=protocol, seconds=round(time.monotonic() - begun, 1), figures=figures)
        path.write_text(json.dumps(asdict(cell), indent=2) + "\n", encoding="utf-8")
        return cell

    def _counts(self, kept: Cell, protocol: Mapping[str, float]) -> bool:
        same = (kept.code, dict(kept.protocol)) == (self._code, dict(protocol))
        return same and not kept.code.endswith(_CHANGED)


def measured_code() -> str:
    """Names the code that runs."""
    commit = _git("log", "-1", "--format=%h", "--", *MEASURED_CODE)
    return commit + (_CHANGED if _git("status", "--porcelain", "--", *MEASURED_CODE) else "")


def _git(*arguments: str) -> str:
    asked = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30, check=True)
    return asked.stdout.strip()


def _read(path: Path) -> Cell | None:
    """None: there is none, or one of another form."""
    try:
        return Cell(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None
