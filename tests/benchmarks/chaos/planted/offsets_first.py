"""The learner commits how far it has read, and only then, in another transaction, what it read.

A kill between the two loses the batch. The gap is held open for a while, so that six kills meet it. (Of 0.3 seconds,
six once missed it.)
"""

from __future__ import annotations

import time
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


class AlreadyAdvanced:
    """In place of `Positions`, in the transaction of the rows."""

    def advance(self, connection: Any, position: Position, *, to: Position) -> None:
        """The offsets were committed before."""


def offsets_first(write: Callable[..., dict[Place, Position]]) -> Callable[..., dict[Place, Position]]:
    """`BatchWriter.write` in two transactions."""

    def wrong(self: Any, records: Sequence[Record], held: Mapping[Place, Position]) -> dict[Place, Position]:
        positions, database = self._positions, self._database
        moved: dict[Place, Position] = {}
        for place in {record.place for record in records}:
            mine = [record for record in records if record.place == place and record.offset >= held[place].next]
            if mine:
                moved[place] = self._after(held[place], [read(one, deployment=self._deployment) for one in mine])
        with database.write() as connection:
            for place, to in moved.items():
                positions.advance(connection, held[place], to=to)
        if moved:
            time.sleep(GAP_S)
        self._positions = AlreadyAdvanced()
        try:
            return write(self, records, held)
        finally:
            self._positions = positions

    return wrong


if __name__ == "__main__":
    replace(batch.BatchWriter, "write", offsets_first)
    run(load_settings())
