"""The learner commits how far it has read, and only then, in another transaction, what it read.

A kill between the two loses them. The gap is held open for a while, so that six kills meet it. (Of 0.3 seconds, six
once missed it.)
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.learner.ingest import batch
from services.learner.ingest.decoding import read
from services.learner.ingest.positions import Position
from services.learner.main import run
from services.shared.bus.interface import Place, Record
from services.shared.settings import load_settings
from tests.benchmarks.chaos.planted.seam import replace

GAP_S = 0.6
LAST_OF_EACH = 5
"""Records of each partition that a batch writes so. What waited while the learner was away comes as one batch: were it
lost whole, the plant would look broken.
"""


class AlreadyAdvanced:
    """In place of `Positions`, in the transaction of the rows."""

    def advance(self, connection: Any, position: Position, *, to: Position) -> None:
        """The offsets were committed before."""


def offsets_first(write: Callable[..., dict[Place, Position]]) -> Callable[..., dict[Place, Position]]:
    """`BatchWriter.write`, of each partition's last records in two transactions."""

    def wrong(self: Any, records: Sequence[Record], held: Mapping[Place, Position]) -> dict[Place, Position]:
        first, last = _parted(records)
        done = write(self, first, held)
        at = {**held, **done}
        positions = self._positions
        moved: dict[Place, Position] = {}
        for place in {record.place for record in last}:
            mine = [record for record in last if record.place == place and record.offset >= at[place].next]
            if mine:
                moved[place] = self._after(at[place], [read(one, deployment=self._deployment) for one in mine])
        with self._database.write() as connection:
            for place, to in moved.items():
                positions.advance(connection, at[place], to=to)
        if moved:
            time.sleep(GAP_S)
        self._positions = AlreadyAdvanced()
        try:
            return done | write(self, last, at)
        finally:
            self._positions = positions

    return wrong


def _parted(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """All but the last of each partition, and these, in their order."""
    by_place: dict[Place, list[Record]] = defaultdict(list)
    for record in records:
        by_place[record.place].append(record)
    first = [record for mine in by_place.values() for record in mine[:-LAST_OF_EACH]]
    last = [record for mine in by_place.values() for record in mine[-LAST_OF_EACH:]]
    return first, last


if __name__ == "__main__":
    replace(batch.BatchWriter, "write", offsets_first)
    run(load_settings())
