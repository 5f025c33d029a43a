"""The transactions that make, refuse and put back releases. Each is all or nothing, under the leader's epoch.

A commit is one transaction: the release, what it was trained on (`uses`), its experiences' last state, the next
announcement, and an outbox row with the announcement's event. So there is no release without its lineage, no
announcement without its release, and an experience is used at most once along a lineage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, insert, select, tuple_, update

from services.learner.ports import Candidate, ReleaseRow, Verdict
from services.learner.state.candidates import read_live
from services.learner.state.claims import LEADER
from services.learner.state.release_rows import release_row
from services.learner.state.rows import Row
from services.shared.contracts.policies import encode_announcement
from services.shared.contracts.topics import POLICIES
from services.shared.domain.errors import Fenced
from services.shared.domain.events import Clock, EventMeta, NewId
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind, ReleaseState
from services.shared.store.database import Database
from services.shared.store.leases import check_epoch
from services.shared.store.tables import announcements, candidates, experiences, feedback, outbox, releases, uses
from services.shared.store.upsert import chunks, insert_missing

REFUSED = "candidate refused"
"""Reason of experiences that were discarded with their candidate."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Whose announcements these are, and where their ids and times come from."""

    deployment: str
    tenant: str
    clock: Clock
    new_id: NewId


class ReleaseCommits:
    """The releaser's writes, for one epoch. All raise Fenced when a newer leader has taken over."""

    def __init__(self, database: Database, *, origin: Origin, epoch: int) -> None:
        self._database = database
        self._origin = origin
        self._epoch = epoch

    def commit(self, candidate: Candidate, verdict: Verdict) -> None:
        """Makes a candidate the live release. The same again changes nothing."""
        with self._transaction() as connection:
            if not _decide(connection, candidate, verdict):
                return
            now = self._origin.clock()
            row = release_row(candidate, verdict, ReleaseState.COMMITTED, now)
            connection.execute(insert(releases).values(row))
            insert_missing(connection, uses, _use_rows(connection, candidate))
            if candidate.kind is ReleaseKind.POLICY:
                _use_up(connection, candidate)
            self._announce(connection, candidate, AnnouncementReason.RELEASE)

    def refuse(self, candidate: Candidate, verdict: Verdict) -> None:
        """Records the refusal; the experiences of a refused policy are discarded. The same again changes nothing."""
        with self._transaction() as connection:
            if not _decide(connection, candidate, verdict):
                return
            row = release_row(candidate, verdict, ReleaseState.REFUSED, self._origin.clock())
            insert_missing(connection, releases, [row])
            if candidate.kind is ReleaseKind.POLICY:
                mine = (experiences.c.state == "claimed", experiences.c.claim_epoch == candidate.epoch)
                move(connection, candidate.rollout_ids, *mine, state="stale", stale_reason=REFUSED)

    def announce_again(self, kind: ReleaseKind) -> None:
        """Announces the live release under this epoch, so that nothing a former leader says later can win."""
        with self._transaction() as connection:
            release = read_live(connection, kind)
            if release is not None:
                self._announce(connection, release, AnnouncementReason.REPEAT)

    def announce(
        self, connection: Connection, release: Candidate | ReleaseRow, reason: AnnouncementReason
    ) -> Announcement:
        """Adds the next announcement of a kind, and its event to the outbox, within a transaction."""
        return self._announce(connection, release, reason)

    def _transaction(self) -> FencedTransaction:
        return FencedTransaction(self._database, self._epoch)

    def _announce(
        self, connection: Connection, release: Candidate | ReleaseRow, reason: AnnouncementReason
    ) -> Announcement:
        now = self._origin.clock()
        last = select(func.max(announcements.c.sequence)).where(announcements.c.kind == release.kind.value)
        announcement = Announcement(
            meta=EventMeta(
                event_id=self._origin.new_id(),
                deployment=self._origin.deployment,
                tenant=self._origin.tenant,
                event_time=now,
            ),
            kind=release.kind,
            epoch=self._epoch,
            sequence=(connection.scalar(last) or 0) + 1,
            version=release.version,
            parent_version=release.parent_version,
            checkpoint_path=release.checkpoint_path,
            manifest_sha256=release.manifest_sha256,
            base_model_digest=release.base_model_digest,
            reason=reason,
        )
        _write_announcement(connection, announcement)
        return announcement


class FencedTransaction:
    """A writing transaction that begins by checking the leader's epoch."""

    def __init__(self, database: Database, epoch: int) -> None:
        self._block = database.write()
        self._epoch = epoch

    def __enter__(self) -> Connection:
        connection = self._block.__enter__()
        try:
            check_epoch(connection, LEADER, self._epoch)
        except Fenced as error:
            self._block.__exit__(type(error), error, error.__traceback__)
            raise
        return connection

    def __exit__(self, *failure: object) -> None:
        self._block.__exit__(*failure)  # type: ignore[arg-type]
