"""`make bench-store`: what a store of many experiences still takes in a second, on SQLite and on PostgreSQL.

A cell is one kind of store at one size: the store is bulk-loaded to the size, and then the next experiences are
ingested (rollout and score), joined (a thumb each) and claimed by the real write path, in slices that alternate with a
store of 100 thousand that is loaded anew. The ratio of the two rates is the cell's; the worst of the three kinds is
what counts. Median and quartiles of the ratios of slices that were next to each other tell how much noise there was.
Of each kind there is a cell for retention, too: many times what it keeps is stored, and the disk's use looked at.

A cell that has been measured is kept in `.bench/store-cells/` for the runs of the same code and protocol, and a store
that is only half loaded is loaded further by the next run; one that a run was measuring when it was stopped is loaded
again. Sizes beyond the disk's room are refused.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles

from rich.console import Console
from rich.table import Table

from services.shared.store.database import Database
from tests.benchmarks.cells import Cell, Cells, Figures, measured_code
from tests.benchmarks.figures import write_figures
from tests.benchmarks.store_places import BYTES_EACH, Places, fill, open_places, spoil, stored_bytes
from tests.benchmarks.store_rates import KINDS, Side, Spent, measure
from tests.benchmarks.store_retention import PROTOCOL as RETENTION_PROTOCOL
from tests.benchmarks.store_retention import measure_retention

SMALL = 100_000
NAMES = {1_000_000: "1m", 10_000_000: "10m"}
SHORT = {"sqlite": "sqlite", "postgresql": "postgres"}
_OF_KIND = ("per_s", "ratio", "ratio_q1", "ratio_median", "ratio_q3")
_OF_CELL = (
    *(f"small_{kind}_per_s" for kind in KINDS),
    "bytes_per_experience",
    "small_bytes_per_experience",
    "ready_count_ms",
    "small_ready_count_ms",
    "measured",
    "warm_up",
    "slice",
)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How many experiences of each store are measured, in slices of how many, after how many that do not count."""

    warm_up: int
    count: int
    slice_size: int

    def __post_init__(self) -> None:
        if self.warm_up % self.slice_size or self.count % self.slice_size or self.count < 2 * self.slice_size:
            raise SystemExit("--warm-up and --measure are whole slices, and at least two are measured.")


def measure_cell(places: Places, size: int, protocol: Protocol) -> Figures:
    """Loads what is missing, then measures both stores in turn."""
    begun = time.monotonic()
    large, small = places.open(f"store_{size}"), _anew(places, "store_small")
    try:
        fill(large, size, lambda loaded: _tell(f"{size}: loaded {loaded}", begun), indexes_last=True)
        fill(small, SMALL, lambda loaded: _tell(f"small: loaded {loaded}", begun), indexes_last=False)
        cell: Figures = {
            "experiences": size,
            "bytes_per_experience": stored_bytes(large) / size,
            "small_bytes_per_experience": stored_bytes(small) / SMALL,
            "load_s": time.monotonic() - begun,
        }
        spoil(large)
        sides = (Side(large, size), Side(small, SMALL))
        measure(sides, **asdict(protocol), tell=lambda done: _tell(f"{size}: at {done}", begun))
        for kind in KINDS:
            cell |= _rates(kind, *(side.spent[kind] for side in sides))
        cell |= {"measured": protocol.count, "warm_up": protocol.warm_up, "slice": protocol.slice_size}
        cell |= {"rate_ratio": min(cell[f"{kind}_ratio"] for kind in KINDS)}
        cell |= {"ready_count_ms": 1000 * sides[0].ready_count_s()}
        cell |= {"small_ready_count_ms": 1000 * sides[1].ready_count_s()}
    finally:
        large.close()
        small.close()
    places.remove(f"store_{size}")
    places.remove("store_small")
    return cell


def run_retention(cells: Cells, kinds: list[str], folder: Path) -> dict[str, Cell]:
    """A cell for each kind of store."""
    begun = time.monotonic()

    def measured(kind: str) -> Figures:
        with open_places(kind, folder) as places:
            return measure_retention(places, partial(_tell, begun=begun))

    return {kind: cells.get(f"{kind}-retention", RETENTION_PROTOCOL, partial(measured, kind)) for kind in kinds}


def run(cells: Cells, kinds: list[str], sizes: list[int], folder: Path, protocol: Protocol) -> dict[str, Cell]:
    """A cell for each kind of store and size."""

    def measured(kind: str, size: int) -> Figures:
        _check_room(folder, size)
        with open_places(kind, folder) as places:
            return measure_cell(places, size, protocol)

    names = [(kind, size) for kind in kinds for size in sizes]
    return {
        f"{kind}-{size}": cells.get(f"{kind}-{size}", asdict(protocol), partial(measured, kind, size))
        for kind, size in names
    }


def show(cells: dict[str, Figures]) -> None:
    """The table; ratios last."""
    rates_of = (f"{kind}/s (100k)" for kind in KINDS)
    table = Table("store", "experiences", "n", "bytes each", *rates_of, "ready count", "ratios (quartiles)")
    for name, cell in cells.items():
        rates = [f"{cell[f'{kind}_per_s']:.0f} ({cell[f'small_{kind}_per_s']:.0f})" for kind in KINDS]
        table.add_row(
            name.partition("-")[0],
            f"{cell['experiences']:,.0f}",
            f"{cell['measured']:,.0f}",
            f"{cell['bytes_per_experience']:.0f}",
            *rates,
            f"{cell['ready_count_ms']:.1f} ms",
            "\n".join(
                f"{cell[f'{kind}_ratio']:.2f} ("
                + "/".join(f"{cell[f'{kind}_ratio_{part}']:.2f}" for part in ("q1", "median", "q3"))
                + ")"
                for kind in KINDS
            ),
        )
    Console(width=150).print(table)


def show_retention(cells: dict[str, Figures]) -> None:
    """The table; ratios last."""
    table = Table("store", "stored", "MB settled", "MB at the end", "stored/s", "deleted/s", "growth", "deleted/stored")
    for kind, cell in cells.items():
        table.add_row(
            kind,
            f"{cell['retention_experiences']:,.0f}",
            f"{cell['retention_settled_mb']:.1f}",
            f"{cell['retention_end_mb']:.1f}",
            f"{cell['retention_stored_per_s']:,.0f}",
            f"{cell['retention_deleted_per_s']:,.0f}",
            f"{cell['retention_growth']:.2f}",
            f"{cell['retention_speed_ratio']:.2f}",
        )
    Console(width=150).print(table)


def figures_of(cells: dict[str, Figures], retention: dict[str, Figures]) -> tuple[Figures, dict[str, str]]:
    """Figures and aims, of what was measured alone."""
    figures: Figures = {}
    for name, cell in cells.items():
        kind, _, size = name.partition("-")
        short = SHORT[kind]
        figures[f"rate_ratio_{NAMES.get(int(size), size)}_{short}"] = cell["rate_ratio"]
        for key in (*(f"{part}_{what}" for part in KINDS for what in _OF_KIND), *_OF_CELL):
            figures[f"{key}_{NAMES.get(int(size), size)}_{short}"] = cell[key]
    for kind, cell in retention.items():
        figures |= {f"{key}_{SHORT[kind]}": value for key, value in cell.items()}
    if cells:
        figures["bytes_per_experience"] = max(cell["small_bytes_per_experience"] for cell in cells.values())
    aims = {key: ">= 0.8" for key in figures if key.startswith("rate_ratio_")}
    aims |= {key: "<= 1.1" for key in figures if key.startswith("retention_growth_")}
    aims |= {key: ">= 1" for key in figures if key.startswith("retention_speed_ratio_")}
    return figures, aims


def _rates(kind: str, large: Spent, small: Spent) -> Figures:
    """Rates of both, their ratio, and the quartiles of the ratios of slices that were next to each other."""
    ratios = [there / here for here, there in zip(large.slices, small.slices, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return {
        f"{kind}_per_s": large.rate,
        f"small_{kind}_per_s": small.rate,
        f"{kind}_ratio": large.rate / small.rate,
        f"{kind}_ratio_q1": low,
        f"{kind}_ratio_median": middle,
        f"{kind}_ratio_q3": high,
        f"{kind}_cpu_ms": 1000 * large.cpu_s / large.experiences,
        f"small_{kind}_cpu_ms": 1000 * small.cpu_s / small.experiences,
        f"{kind}_cpu_ratio": (small.cpu_s / small.experiences) / (large.cpu_s / large.experiences),
    }


def _anew(places: Places, name: str) -> Database:
    places.remove(name)
    return places.open(name)


def _check_room(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lying = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    room = shutil.disk_usage(folder).free + lying
    if room < size * BYTES_EACH:
        raise SystemExit(
            f"{size:,} experiences need {size * BYTES_EACH / 1e9:.0f} GB, {folder} has {room / 1e9:.0f} GB:"
            " name another --folder, or fewer --sizes."
        )


def _tell(what: str, begun: float) -> None:
    print(f"{time.monotonic() - begun:8.1f} s  {what}", flush=True)


def main() -> None:
    """Measures what is missing, prints the table, keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    parser.add_argument("--sizes", nargs="*", type=int, default=[1_000_000, 10_000_000], help="none: retention alone")
    parser.add_argument("--measure", type=int, default=100_000, help="experiences measured at each size")
    parser.add_argument("--slice", type=int, default=500, help="experiences of one store before the other's turn")
    parser.add_argument("--warm-up", type=int, default=6_000, help="experiences of each store that do not count")
    parser.add_argument("--folder", type=Path, default=Path(".bench") / "store-cells" / "stores")
    arguments = parser.parse_args()
    protocol = Protocol(warm_up=arguments.warm_up, count=arguments.measure, slice_size=arguments.slice)
    folder = arguments.folder.resolve()
    kept = Cells(Path(".bench") / "store-cells", code=measured_code())
    retention_cells = run_retention(kept, arguments.stores, folder)
    cells = run(kept, arguments.stores, arguments.sizes, folder, protocol)
    sized = {name: cell.figures for name, cell in cells.items()}
    retention = {name: cell.figures for name, cell in retention_cells.items()}
    show_retention(retention)
    if sized:
        show(sized)
    figures, aims = figures_of(sized, retention)
    seconds = sum(cell.seconds for cell in (*cells.values(), *retention_cells.values()))
    print(write_figures("store", figures, aims, seconds=seconds))


if __name__ == "__main__":
    main()
