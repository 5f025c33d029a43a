"""What replicas say: which version each serves, why a stage failed, which orders were carried out."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from services.shared.domain.errors import InvalidInput, NotFound
from services.shared.domain.events import Clock
from services.shared.domain.release import ReleaseKind
from services.shared.store.database import Database
from services.shared.store.tables import acknowledgements, announcements, control_acknowledgements, controls
from services.shared.store.upsert import insert_missing, upsert


@dataclass(frozen=True, kw_only=True)
class ReleaseAcknowledgement:
    """A replica serves a version, or (`stage_error`) could not stage it and serves what it served before."""

    replica_id: str
    kind: ReleaseKind
    epoch: int
    sequence: int
    version: str
    stage_error: str = ""


class Acknowledgements:
    """Keeps the last word of each replica."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def release(self, said: ReleaseAcknowledgement) -> None:
        """Saying it again, or late, changes nothing. Raises InvalidInput, NotFound (it was never announced)."""
        if not said.replica_id:
            raise InvalidInput("replica_id is empty; send the replica's stable name.", field="replica_id")
        announced = select(announcements.c.version).where(
            announcements.c.kind == said.kind.value,
            announcements.c.epoch == said.epoch,
            announcements.c.sequence == said.sequence,
        )
        with self._database.write() as connection:
            if connection.scalar(announced) != said.version:
                raise NotFound(
                    f"{said.version} was not announced as {said.kind}/{said.epoch}/{said.sequence}; acknowledge an"
                    " announcement with its own epoch, sequence and version.",
                    field="version",
                )
            key = (acknowledgements.c.replica_id == said.replica_id, acknowledgements.c.kind == said.kind.value)
            before = connection.execute(select(acknowledgements).where(*key)).one_or_none()
            if before is not None and (said.epoch, said.sequence) < (before.epoch, before.sequence):
                return
            served = before.version if before is not None else ""
            row = {
                "replica_id": said.replica_id,
                "kind": said.kind.value,
                "epoch": said.epoch,
                "sequence": said.sequence,
                "version": served if said.stage_error else said.version,
                "failed_version": said.version if said.stage_error else "",
                "stage_error": said.stage_error,
                "acknowledge_time": self._clock(),
            }
            changed = [name for name in row if name not in ("replica_id", "kind")]
            upsert(connection, acknowledgements, [row], update=changed)

    def control(self, *, replica_id: str, control_id: str) -> None:
        """A consumer carried out an order. Again changes nothing. Raises InvalidInput, NotFound."""
        if not replica_id:
            raise InvalidInput("replica_id is empty; send the consumer's stable name.", field="replica_id")
        row = {"control_id": control_id, "replica_id": replica_id, "acknowledge_time": self._clock()}
        with self._database.write() as connection:
            if connection.scalar(select(controls.c.control_id).where(controls.c.control_id == control_id)) is None:
                raise NotFound(f"there is no order {control_id!r}.", field="control_id")
            insert_missing(connection, control_acknowledgements, [row])
