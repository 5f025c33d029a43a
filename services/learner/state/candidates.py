"""Candidates: the trainer hands them in, the releaser decides, the trainer asks what became of them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from services.learner.forgetting.lineage import check_not_forgotten
from services.learner.ports import Candidate, ReleaseRow, Verdict
from services.learner.state.experience_moves import move
from services.learner.state.fencing import fenced_write
from services.learner.state.release_rows import candidate_from, candidate_row, release_from
from services.shared.domain.errors import Fenced
from services.shared.domain.events import Clock
from services.shared.domain.release import ReleaseKind
from services.shared.store.database import Database
from services.shared.store.tables import acknowledgements, announcements, candidates, experiences, releases
from services.shared.store.upsert import insert_missing

UNTIL_DECIDED = datetime(9999, 1, 1, tzinfo=UTC)
"""Lease of experiences whose candidate waits for its verdict: only a newer epoch may take them."""


class SqlCandidates:
    """`ports.Candidates` on SQL, for the holder of one epoch."""

    def __init__(self, database: Database, *, clock: Clock, epoch: int) -> None:
        self._database = database
        self._clock = clock
        self._epoch = epoch

    def next_number(self, kind: ReleaseKind) -> int:
        """See the port."""
        with self._database.read() as connection:
            numbers = [
                connection.scalar(select(func.max(table.c.number)).where(table.c.kind == kind.value))
                for table in (releases, candidates)
            ]
        return max((number + 1 for number in numbers if number is not None), default=0)

    def submit(self, candidate: Candidate) -> None:
        """See the port. Raises Fenced when the candidate's epoch is over, or its experiences are not claimed by it;
        FailedPrecondition (`FORGOTTEN`) when somebody it learned from has been forgotten.
        """
        with fenced_write(self._database, self._epoch) as connection:
            if candidate.epoch != self._epoch:
                raise Fenced(f"{candidate.version} is of epoch {candidate.epoch}, this is {self._epoch}: train again.")
            known = select(candidates.c.version).where(candidates.c.version == candidate.version)
            if connection.scalar(known) is None:
                check_not_forgotten(connection, candidate)
                insert_missing(connection, candidates, [candidate_row(candidate, self._clock())])
                if candidate.kind is ReleaseKind.POLICY:
                    _hold(connection, candidate)

    def verdict(self, version: str) -> Verdict | None:
        """See the port. None for a version that was never submitted, too."""
        query = select(candidates.c.passed, candidates.c.verdict).where(candidates.c.version == version)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or row.passed is None:
            return None
        return Verdict(passed=row.passed, lines=tuple(row.verdict or ()))

    def live(self, kind: ReleaseKind) -> ReleaseRow | None:
        """See the port: of the greatest sequence, also where Kafka has not acknowledged it yet (it will)."""
        with self._database.read() as connection:
            return read_live(connection, kind)

    def acknowledged_by(self, version: str) -> frozenset[str]:
        """See the port."""
        query = select(acknowledgements.c.replica_id).where(acknowledgements.c.version == version)
        with self._database.read() as connection:
            return frozenset(connection.scalars(query))

    def undecided(self) -> list[Candidate]:
        """Candidates that wait for the releaser, oldest first."""
        query = select(candidates).where(candidates.c.passed.is_(None)).order_by(candidates.c.submit_time)
        with self._database.read() as connection:
            return [candidate_from(row) for row in connection.execute(query)]


def read_live(connection: Connection, kind: ReleaseKind) -> ReleaseRow | None:
    """The release of a kind's newest announcement."""
    newest = (
        select(announcements.c.version)
        .where(announcements.c.kind == kind.value)
        .order_by(announcements.c.sequence.desc())
        .limit(1)
    )
    row = connection.execute(select(releases).where(releases.c.version == newest.scalar_subquery())).one_or_none()
    return None if row is None else release_from(row)


def _hold(connection: Connection, candidate: Candidate) -> None:
    """The batch stays claimed until the verdict. Raises Fenced when part of it is another's by now."""
    mine = (experiences.c.state == "claimed", experiences.c.claim_epoch == candidate.epoch)
    held = move(connection, candidate.rollout_ids, *mine, lease_until=UNTIL_DECIDED)
    if held != len(set(candidate.rollout_ids)):
        raise Fenced(
            f"{len(set(candidate.rollout_ids)) - held} experiences of {candidate.version} are not claimed by epoch"
            f" {candidate.epoch} any more; claim again and train again."
        )
