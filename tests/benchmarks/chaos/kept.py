"""What the full form keeps: each part that ended well, so that a run that was stopped goes on where it was; then the
figures of all of them, and every orphan.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.benchmarks.cells import Cell, Cells
from tests.benchmarks.chaos.parts import PARTS, Brought, Options
from tests.benchmarks.chaos.report import Figures
from tests.benchmarks.figures import write_figures


class KeptParts:
    """Below `folder`, usually `.bench`. A part counts for the code and the options that it was run with."""

    def __init__(self, folder: Path, *, code: str, options: Options, again: bool) -> None:
        """`again`: what is kept does not count."""
        self._folder = folder
        self._cells_folder = folder / "chaos-cells"
        if again:
            shutil.rmtree(self._cells_folder, ignore_errors=True)
        self._cells = Cells(self._cells_folder, code=code)
        self._options = options
        self._cells_by_part: dict[str, Cell] = {}

    def get(self, part: str, run: Callable[[], Brought]) -> Figures:
        """The part's figures; it is run unless it is kept. What `run` raises is raised, and nothing is kept."""

        def measure() -> Figures:
            brought = run()
            self._orphans_path(part).write_text("".join(f"{line}\n" for line in brought.orphans), encoding="utf-8")
            return brought.figures

        self._cells_by_part[part] = self._cells.get(part, self._protocol(), measure)
        return self._cells_by_part[part].figures

    def write(self, aims: Mapping[str, str]) -> list[Path]:
        """The figures of all parts, and their orphans. Nothing, where a part has not been asked for."""
        if set(self._cells_by_part) != set(PARTS):
            return []
        cells = [self._cells_by_part[part] for part in PARTS]
        figures = {name: value for cell in cells for name, value in cell.figures.items()}
        orphans = self._folder / "chaos-orphans.txt"
        orphans.write_text("".join(map(self._orphans, PARTS)), encoding="utf-8")
        return [write_figures("chaos", figures, aims, seconds=sum(cell.seconds for cell in cells)), orphans]

    def _orphans(self, part: str) -> str:
        path = self._orphans_path(part)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return "".join(f"{part}: {line}\n" for line in lines)

    def _orphans_path(self, part: str) -> Path:
        return self._cells_folder / f"{part}-orphans.txt"

    def _protocol(self) -> dict[str, float]:
        options = self._options
        return {
            "kills": options.form.kills,
            "embedded_kills": options.form.embedded_kills,
            "seed": options.seed,
            "clients": options.clients,
            "within_s": options.within_s,
        }
