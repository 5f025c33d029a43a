"""Orders to forget, as rows of `controls`, and their way to Kafka.

An order has one or more *parts*, each an event of its own: one names one pseudonym and so many rollouts, and fits into
an event. Part 0 has the order's id; the others append `.1`, `.2`, ... An order is published, or carried out by a
consumer, when all its parts are. The first part also keeps the answer that the caller got, so that asking again gives
it again.

The outbox pattern: a part is committed with the deletion, sent afterwards until Kafka has it, and marked. A crash
between the two sends it twice, which changes nothing for a consumer.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any

from sqlalchemy import Connection, insert, select, update

from services.learner.state.fencing import fenced_write
from services.shared.bus.interface import OutgoingEvent, Publisher, Record
from services.shared.contracts.controls import encode_control
from services.shared.contracts.topics import CONTROLS
from services.shared.domain.control import Control, Forget
from services.shared.domain.errors import NotFound, ThumbloopError
from services.shared.domain.events import Clock, EventMeta
from services.shared.store.database import Database
from services.shared.store.tables import control_acknowledgements, controls
from services.shared.telemetry.log import get_logger

FORGET = "forget"
ROLLOUTS_A_PART = 10_000
"""Ids of 36 characters: less than half of what an event may take."""
MAX_IN_FLIGHT = 100

_log = get_logger(role="releaser")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the caller of an order was told. `versions`: releases that learned from the person, oldest first."""

    control_id: str
    rollouts: int
    feedback: int
    versions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an order is. `publish_time` None: Kafka has not had all of it. `waiting_for`: who lives, but has not
    carried it out.
    """

    publish_time: datetime | None
    acknowledged_by: tuple[str, ...]
    waiting_for: tuple[str, ...]


def write_order(
    connection: Connection,
    answer: Answer,
    *,
    tenant: str,
    epoch: int,
    rater_ids: Sequence[str],
    rollout_ids: Sequence[str],
    now: datetime,
) -> None:
    """Adds the order's parts, to be published."""
    pieces = [rollout_ids[begin : begin + ROLLOUTS_A_PART] for begin in range(0, len(rollout_ids), ROLLOUTS_A_PART)]
    parts = list(zip_longest(rater_ids, pieces))
    told = {"rollouts": answer.rollouts, "feedback": answer.feedback, "versions": list(answer.versions)}
    for number, (rater_id, piece) in enumerate(parts):
        order: dict[str, Any] = {"kind": FORGET, "rater_id": rater_id or rater_ids[0], "rollout_ids": list(piece or ())}
        if number == 0:
            order |= {"rater_ids": list(rater_ids), "parts": len(parts), "answer": told}
        row = {"control_id": part_id(answer.control_id, number), "tenant": tenant, "epoch": epoch, "order": order}
        connection.execute(insert(controls).values(row | {"commit_time": now}))


def read_order(connection: Connection, control_id: str) -> tuple[str, tuple[str, ...], Answer] | None:
    """Tenant, pseudonyms and answer of an order that was given before; None: it was not."""
    row = connection.execute(select(controls).where(controls.c.control_id == control_id)).one_or_none()
    if row is None or "answer" not in row.order:
        return None
    told = row.order["answer"]
    answer = Answer(
        control_id=control_id, rollouts=told["rollouts"], feedback=told["feedback"], versions=tuple(told["versions"])
    )
    return row.tenant, tuple(row.order["rater_ids"]), answer


def read_progress(database: Database, control_id: str, *, expected: Set[str]) -> Progress:
    """Over all parts of an order that these consumers have to carry out. Raises NotFound."""
    with database.read() as connection:
        first = connection.execute(select(controls).where(controls.c.control_id == control_id)).one_or_none()
        if first is None:
            raise NotFound(f"there is no order {control_id[:64]!r}.", reason="ORDER_NOT_FOUND", field="control_id")
        parts = [part_id(control_id, number) for number in range(first.order.get("parts", 1))]
        times = [
            connection.scalar(select(controls.c.publish_time).where(controls.c.control_id == part)) for part in parts
        ]
        done = [
            set(
                connection.scalars(
                    select(control_acknowledgements.c.replica_id).where(control_acknowledgements.c.control_id == part)
                )
            )
            for part in parts
        ]
    published = [time for time in times if time is not None]
    acknowledged = set.intersection(*done)
    return Progress(
        publish_time=max(published) if len(published) == len(parts) else None,
        acknowledged_by=tuple(sorted(acknowledged)),
        waiting_for=tuple(sorted(expected - acknowledged)),
    )


def part_id(control_id: str, number: int) -> str:
    """Id of an order's part, as consumers see it."""
    return control_id if number == 0 else f"{control_id}.{number}"


class OrderOutbox:
    """Sends what waits, under one epoch. `step` never blocks on Kafka."""

    def __init__(self, database: Database, publisher: Publisher, *, deployment: str, clock: Clock, epoch: int) -> None:
        self._database = database
        self._publisher = publisher
        self._deployment = deployment
        self._clock = clock
        self._epoch = epoch
        self._in_flight: dict[str, Future[Record]] = {}

    def step(self) -> int:
        """Marks what was acknowledged and sends what waits; how many still wait. Raises Fenced."""
        self._settle()
        query = (
            select(controls)
            .where(controls.c.publish_time.is_(None))
            .order_by(controls.c.commit_time, controls.c.control_id)
            .limit(MAX_IN_FLIGHT)
        )
        with self._database.read() as connection:
            waiting = connection.execute(query).all()
        for row in waiting:
            if row.control_id not in self._in_flight:
                self._in_flight[row.control_id] = self._publisher.send(self._event(row))
        return len(waiting)

    def _settle(self) -> None:
        acknowledged: list[str] = []
        for control_id, future in list(self._in_flight.items()):
            if future.done():
                del self._in_flight[control_id]
                error = future.exception()
                if error is None:
                    acknowledged.append(control_id)
                elif isinstance(error, ThumbloopError):
                    _log.warning("order_not_acknowledged", control_id=control_id, error=error.message)
                else:
                    raise error
        if acknowledged:
            with fenced_write(self._database, self._epoch) as connection:
                connection.execute(
                    update(controls)
                    .where(controls.c.control_id.in_(acknowledged), controls.c.publish_time.is_(None))
                    .values(publish_time=self._clock())
                )

    def _event(self, row: Any) -> OutgoingEvent:
        """The same bytes each time: the order's id is also its event's."""
        control = Control(
            meta=EventMeta(
                event_id=row.control_id, deployment=self._deployment, tenant=row.tenant, event_time=row.commit_time
            ),
            control_id=row.control_id,
            epoch=row.epoch,
            order=Forget(rater_id=row.order["rater_id"], rollout_ids=tuple(row.order["rollout_ids"])),
        )
        return OutgoingEvent(topic=CONTROLS, key=row.control_id, value=encode_control(control))
