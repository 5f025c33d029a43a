"""The transactions that make, refuse and put back releases. Each is all or nothing, under the leader's epoch.

A commit is one transaction: the release, what it was trained on (`uses`), its experiences' last state, the next
announcement, and an outbox row with the announcement's event. So there is no release without its lineage, no
announcement without its release, and an experience is used at most once along a lineage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from services.learner.ports import Candidate, ReleaseRow, Verdict
from services.learner.state.candidates import read_live
from services.learner.state.experience_moves import move, switch_lineage
from services.learner.state.fencing import fenced_write
from services.learner.state.release_rows import candidate_row, decided, release_from, release_row
from services.learner.state.rows import Row
from services.learner.state.training_sets import Trained, TrainingSets
from services.shared.contracts.policies import encode_announcement
from services.shared.contracts.topics import POLICIES
from services.shared.domain.errors import FailedPrecondition, Fenced, NotFound
from services.shared.domain.events import Clock, EventMeta, NewId
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind, ReleaseState
from services.shared.store.database import Database
from services.shared.store.tables import (
    announcements,
    candidates,
    experiences,
    feedback,
    outbox,
    releases,
    rollouts,
    uses,
)
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
        with fenced_write(self._database, self._epoch) as connection:
            self._commit(connection, candidate, verdict)

    def commit_first(self, candidate: Candidate) -> None:
        """Makes release 0 of a kind live, where the kind has no release yet; there is nothing to judge it by."""
        with fenced_write(self._database, self._epoch) as connection:
            if read_live(connection, candidate.kind) is None:
                insert_missing(connection, candidates, [candidate_row(candidate, self._origin.clock())])
                self._commit(connection, candidate, Verdict(passed=True, lines=("ok release 0",)))

    def refuse(self, candidate: Candidate, verdict: Verdict) -> None:
        """Records the refusal; the experiences of a refused policy are discarded. The same again changes nothing.

        What an older epoch had claimed was not judged by its worth: it is open again, and stays so.
        """
        with fenced_write(self._database, self._epoch) as connection:
            if not _decide(connection, candidate, verdict):
                return
            row = release_row(candidate, verdict, ReleaseState.REFUSED, self._origin.clock())
            insert_missing(connection, releases, [row])
            if candidate.kind is ReleaseKind.POLICY and candidate.epoch == self._epoch:
                mine = (experiences.c.state == "claimed", experiences.c.claim_epoch == candidate.epoch)
                move(connection, candidate.rollout_ids, *mine, state="stale", stale_reason=REFUSED)

    def announce_again(self, kind: ReleaseKind) -> None:
        """Announces the live release under this epoch, so that nothing a former leader says later can win."""
        with fenced_write(self._database, self._epoch) as connection:
            release = read_live(connection, kind)
            if release is not None:
                self._announce(connection, release, AnnouncementReason.REPEAT)

    def roll_back(self, version: str) -> Announcement:
        """Makes an earlier release live again (or a later one, after a rollback). Raises NotFound, FailedPrecondition.

        What the releases that are put aside had used is ready again; training goes on from `version`.
        """
        with fenced_write(self._database, self._epoch) as connection:
            release = _retained(connection, version)
            live = read_live(connection, release.kind)
            if live is not None:
                switch_lineage(connection, live.version, version)
            return self._announce(connection, release, AnnouncementReason.ROLLBACK)

    def _commit(self, connection: Connection, candidate: Candidate, verdict: Verdict) -> None:
        if not _decide(connection, candidate, verdict):
            return
        row = release_row(candidate, verdict, ReleaseState.COMMITTED, self._origin.clock())
        connection.execute(insert(releases).values(row))
        insert_missing(connection, uses, _use_rows(connection, candidate))
        if candidate.kind is ReleaseKind.POLICY:
            _use_up(connection, candidate)
        self._announce(connection, candidate, AnnouncementReason.RELEASE)

    def _announce(
        self, connection: Connection, release: Candidate | ReleaseRow, reason: AnnouncementReason
    ) -> Announcement:
        """Adds the next announcement of a kind, and its event to the outbox."""
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


def _decide(connection: Connection, candidate: Candidate, verdict: Verdict) -> bool:
    """Records the verdict. False: it had been decided before."""
    undecided = (candidates.c.version == candidate.version, candidates.c.passed.is_(None))
    values = decided(candidate.kind, verdict)
    return connection.execute(update(candidates).where(*undecided).values(values)).rowcount == 1


def _use_up(connection: Connection, candidate: Candidate) -> None:
    """The batch is used. Raises Fenced when part of it is not claimed by this epoch."""
    mine = (experiences.c.state == "claimed", experiences.c.claim_epoch == candidate.epoch)
    used = move(connection, candidate.rollout_ids, *mine, state="used", lease_until=None)
    if used != len(set(candidate.rollout_ids)):
        raise Fenced(f"the experiences of {candidate.version} are not all claimed by epoch {candidate.epoch}.")


def _use_rows(connection: Connection, candidate: Candidate) -> list[Row]:
    """Rows of `uses`: of a policy its whole batch, of a reward model what came and went since its parent."""
    trained = _trained_on(connection, candidate)
    if candidate.kind is ReleaseKind.REWARD_MODEL:
        marked = list(TrainingSets(connection).difference(candidate.version, trained))
    else:
        marked = [(one, candidate.kind.value) for one in trained]
    return [{"version": candidate.version, "kind": kind, **one._asdict()} for one, kind in marked]


def _trained_on(connection: Connection, candidate: Candidate) -> list[Trained]:
    """Each rollout with the feedback trained on, or with none."""
    found: list[Trained] = []
    for some in chunks(tuple(dict.fromkeys(candidate.rollout_ids))):
        tenants: dict[str, str] = {
            row.rollout_id: row.tenant
            for row in connection.execute(
                select(rollouts.c.rollout_id, rollouts.c.tenant).where(rollouts.c.rollout_id.in_(some))
            )
        }
        said = _said(connection, tenants, frozenset(candidate.feedback_ids))
        for rollout_id, tenant in tenants.items():
            found += [Trained(tenant, rollout_id, feedback_id) for feedback_id in said.get(rollout_id, [""])]
    return found


def _said(connection: Connection, tenants: Mapping[str, str], feedback_ids: frozenset[str]) -> dict[str, list[str]]:
    """Feedback of these rollouts, as far as it is among `feedback_ids`."""
    found: dict[str, set[str]] = {}
    for tenant in set(tenants.values()):
        rollout_ids = [rollout_id for rollout_id, owner in tenants.items() if owner == tenant]
        query = select(feedback.c.rollout_id, feedback.c.feedback_id).where(
            feedback.c.tenant == tenant, feedback.c.rollout_id.in_(rollout_ids)
        )
        for row in connection.execute(query):
            if row.feedback_id in feedback_ids:
                found.setdefault(row.rollout_id, set()).add(row.feedback_id)
    return {rollout_id: sorted(ids) for rollout_id, ids in found.items()}


def _write_announcement(connection: Connection, announcement: Announcement) -> None:
    event_id, now = announcement.meta.event_id, announcement.meta.event_time
    connection.execute(
        insert(announcements).values(
            kind=announcement.kind.value,
            epoch=announcement.epoch,
            sequence=announcement.sequence,
            version=announcement.version,
            reason=announcement.reason.value,
            event_id=event_id,
            commit_time=now,
        )
    )
    position = (connection.scalar(select(func.max(outbox.c.position))) or 0) + 1
    connection.execute(
        insert(outbox).values(
            event_id=event_id,
            topic=POLICIES,
            key=announcement.key,
            value=encode_announcement(announcement),
            position=position,
            commit_time=now,
        )
    )


def _retained(connection: Connection, version: str) -> ReleaseRow:
    row = connection.execute(select(releases).where(releases.c.version == version)).one_or_none()
    if row is None:
        raise NotFound(f"there is no release {version!r}. `thumbloop policies list` shows all.", field="version")
    release = release_from(row)
    if release.state is ReleaseState.REFUSED:
        raise FailedPrecondition(f"{version} was refused by the gate and has never been live.", field="version")
    return release
