"""Forgets a person: one transaction that deletes, blocks the return, and orders every consumer to do the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from uuid import UUID

from sqlalchemy import Connection, select

from services.learner.forgetting.carrying_out import LEARNER
from services.learner.forgetting.lineage import refuse_candidates_of, versions_that_learned_from
from services.learner.forgetting.orders import Answer, Progress, read_order, read_progress, write_order
from services.learner.forgetting.person import Person, find_person
from services.learner.forgetting.rows import delete_rows
from services.learner.forgetting.tombstones import Subject, hold_off_storing, write_tombstones
from services.learner.state.fencing import LEADER
from services.shared.contracts.checks import check_id
from services.shared.domain.errors import Conflict, InvalidInput
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.tables import leases
from services.shared.telemetry.log import get_logger

MAX_RATER_IDS = 16
"""One for each live pseudonym key; a ring has two while a key is being rotated."""

_log = get_logger()


class Forgetting:
    """Any process of the learner may forget. No claim, submission or commit of the leader runs beside it."""

    def __init__(self, database: Database, *, clock: Clock, living: Callable[[], Set[str]] = frozenset) -> None:
        """`living`: replicas that have to carry orders out, beside the learner itself."""
        self._database = database
        self._clock = clock
        self._living = living

    def forget(self, *, tenant: str, rater_ids: Sequence[str], control_id: str) -> Answer:
        """Deletes all that is stored under these pseudonyms. The same order again gives the same answer.

        Raises InvalidInput, Conflict (the id was used for another order).
        """
        wanted = _check(tenant, rater_ids, control_id)
        with self._database.write() as connection:
            epoch = _hold_off_leader(connection)
            given = read_order(connection, control_id)
            if given is not None:
                return _same_again(given, tenant, wanted)
            hold_off_storing(connection)
            person = find_person(connection, tenant=tenant, rater_ids=wanted)
            answer = Answer(
                control_id=control_id,
                rollouts=len(person.rollout_ids),
                feedback=len(person.statements),
                versions=tuple(versions_that_learned_from(connection, person)),
            )
            refused = refuse_candidates_of(connection, person, clock=self._clock)
            delete_rows(connection, tenant=tenant, rollout_ids=person.rollout_ids, statements=person.statements)
            now = self._clock()
            for subject, ids in _buried(person).items():
                write_tombstones(connection, tenant=tenant, subject=subject, ids=ids, control_id=control_id, now=now)
            write_order(
                connection,
                answer,
                tenant=tenant,
                epoch=epoch,
                rater_ids=wanted,
                rollout_ids=person.rollout_ids,
                now=now,
            )
        _log.warning(
            "person_forgotten",
            control_id=control_id,
            rollouts=answer.rollouts,
            feedback=answer.feedback,
            versions=len(answer.versions),
            candidates_refused=refused,
        )
        return answer

    def progress(self, control_id: str) -> Progress:
        """How far an order has been carried out, and who is waited for. Raises NotFound."""
        return read_progress(self._database, control_id, expected={LEARNER} | self._living())


def _hold_off_leader(connection: Connection) -> int:
    """The leader's epoch; its claims, submissions and commits wait until this transaction ends. 0: none ever led."""
    newest = select(leases.c.epoch).where(leases.c.name == LEADER).with_for_update()
    return int(connection.scalar(newest) or 0)


def _buried(person: Person) -> dict[Subject, list[str]]:
    return {
        Subject.RATER: list(person.rater_ids),
        Subject.ROLLOUT: list(person.rollout_ids),
        Subject.FEEDBACK: [said.feedback_id for said in person.statements],
    }


def _check(tenant: str, rater_ids: Sequence[str], control_id: str) -> tuple[str, ...]:
    check_id("tenant", tenant)
    try:
        valid = UUID(control_id).version == 7
    except ValueError:
        valid = False
    if not valid:
        raise InvalidInput(
            f"control_id is {control_id[:40]!r}; mint a UUIDv7 for each order.", reason="BAD_ID", field="control_id"
        )
    wanted = tuple(dict.fromkeys(rater_ids))
    if not 1 <= len(wanted) <= MAX_RATER_IDS:
        raise InvalidInput(
            f"rater_ids has {len(wanted)} pseudonyms; give 1 to {MAX_RATER_IDS}, one for each live pseudonym key.",
            reason="BAD_COUNT",
            field="rater_ids",
        )
    for rater_id in wanted:
        check_id("rater_ids", rater_id)
    return wanted


def _same_again(given: tuple[str, tuple[str, ...], Answer], tenant: str, rater_ids: tuple[str, ...]) -> Answer:
    given_tenant, given_raters, answer = given
    if (given_tenant, sorted(given_raters)) != (tenant, sorted(rater_ids)):
        raise Conflict(
            f"control_id {answer.control_id!r} was used for another order; mint a new one.",
            reason="CONTROL_ID_REUSED",
            field="control_id",
        )
    return answer
