"""Which releases learned from a person, and what becomes of candidates that were about to be one.

`uses` is the truth of what trained what, and its rows stay: they are ids. A release *learned from* a person when its
batch or its training set held one of their rollouts or statements, or (a policy) when a reward model scored its batch
that had. What trained it is gone, so it cannot be trained again from what the store holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, insert, select, tuple_, update

from services.learner.forgetting.person import Person
from services.learner.forgetting.tombstones import Subject, forgotten_ids
from services.learner.ports import FORGOTTEN_LINE, Candidate, Verdict
from services.learner.state.experience_moves import move
from services.learner.state.release_rows import candidate_from, decided, release_row
from services.learner.state.statements import SLOT
from services.learner.state.training_sets import reward_models_trained_on
from services.shared.domain.errors import FailedPrecondition
from services.shared.domain.events import Clock
from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.store.tables import candidates, experiences, feedback, feedback_slots, releases, tombstones, uses
from services.shared.store.upsert import chunks

FORGOTTEN = "EXPERIENCE_FORGOTTEN"
"""Reason of the refusal of a candidate that learned from somebody who has been forgotten since."""


def versions_that_learned_from(connection: Connection, person: Person) -> list[str]:
    """Releases, oldest first: directly, then through a reward model."""
    direct: set[str] = set()
    for some in chunks(sorted(person.known_rollout_ids)):
        direct |= _used(connection, uses.c.tenant == person.tenant, uses.c.rollout_id.in_(some))
    elsewhere = [said for said in person.statements if said.rollout_id not in person.known_rollout_ids]
    for some_said in chunks(elsewhere):
        pairs = [(said.rollout_id, said.feedback_id) for said in some_said]
        # SQLite finds single values by the index, and would pass over the table for pairs alone.
        rollouts = uses.c.rollout_id.in_([said.rollout_id for said in some_said])
        pair = tuple_(uses.c.rollout_id, uses.c.feedback_id)
        direct |= _used(connection, uses.c.tenant == person.tenant, rollouts, pair.in_(pairs))
    through: set[str] = set()
    for some in chunks(sorted(direct)):
        scored = releases.c.reward_model_version.in_(some), releases.c.state != ReleaseState.REFUSED.value
        through.update(connection.scalars(select(releases.c.version).where(*scored)))
    return _oldest_first(connection, direct | through)


def _oldest_first(connection: Connection, versions: Iterable[str]) -> list[str]:
    """Those of them that are releases; of one moment first the reward models, then the policies, by number."""
    found: list[tuple[datetime, bool, int, str]] = []
    for some in chunks(sorted(versions)):
        query = select(releases.c.commit_time, releases.c.kind, releases.c.number, releases.c.version)
        for row in connection.execute(query.where(releases.c.version.in_(some))):
            found.append((row.commit_time, row.kind == ReleaseKind.POLICY.value, row.number, row.version))
    return [version for *_, version in sorted(found)]


def refuse_candidates_of(connection: Connection, person: Person, *, clock: Clock) -> list[str]:
    """Refuses candidates that wait for their verdict and learned from the person; gives their versions.

    The rest of a refused batch is open again: nothing was wrong with it.
    """
    refused: list[str] = []
    for row in connection.execute(select(candidates).where(candidates.c.passed.is_(None))).all():
        candidate = candidate_from(row)
        if _learned_from(candidate, person):
            _refuse(connection, candidate, clock)
            refused.append(candidate.version)
    return refused


def check_not_forgotten(connection: Connection, candidate: Candidate) -> None:
    """Raises FailedPrecondition (`FORGOTTEN`) when the candidate learned from somebody who was forgotten meanwhile."""
    if connection.scalar(select(tombstones.c.subject).limit(1)) is None:
        return
    tenants = list(connection.scalars(select(tombstones.c.tenant).distinct()))
    for tenant in tenants:
        rollouts = forgotten_ids(connection, tenant=tenant, subject=Subject.ROLLOUT, ids=candidate.rollout_ids)
        said = forgotten_ids(connection, tenant=tenant, subject=Subject.FEEDBACK, ids=candidate.feedback_ids)
        if rollouts or set(said) - _said_by_others(connection, candidate, said):
            raise FailedPrecondition(
                f"{candidate.version} learned from somebody who has been forgotten since; train again without.",
                reason=FORGOTTEN,
            )


def _said_by_others(connection: Connection, candidate: Candidate, feedback_ids: Collection[str]) -> set[str]:
    """Those ids of forgotten statements that somebody else has chosen too, for a statement that the candidate may have.

    By way of the slots, whose key begins with the rollout; every statement has one.
    """
    if not feedback_ids:
        return set()
    found: set[str] = set()
    slot = and_(*(feedback.c[name] == feedback_slots.c[name] for name in SLOT))
    for some in chunks(candidate.rollout_ids):
        query = select(feedback.c.feedback_id).select_from(feedback_slots).join(feedback, slot)
        found.update(connection.scalars(query.where(feedback_slots.c.rollout_id.in_(some))))
    return found.intersection(feedback_ids)


def _learned_from(candidate: Candidate, person: Person) -> bool:
    if not person.known_rollout_ids.isdisjoint(candidate.rollout_ids):
        return True
    named = set(candidate.rollout_ids), set(candidate.feedback_ids)
    return any(said.rollout_id in named[0] and said.feedback_id in named[1] for said in person.statements)


def _refuse(connection: Connection, candidate: Candidate, clock: Clock) -> None:
    verdict = Verdict(passed=False, lines=(FORGOTTEN_LINE,))
    connection.execute(
        update(candidates).where(candidates.c.version == candidate.version).values(decided(candidate.kind, verdict))
    )
    connection.execute(insert(releases).values(release_row(candidate, verdict, ReleaseState.REFUSED, clock())))
    mine = (experiences.c.state == "claimed", experiences.c.claim_epoch == candidate.epoch)
    move(connection, candidate.rollout_ids, *mine, state="open", claim_epoch=None, lease_until=None)


def _used(connection: Connection, *where: ColumnElement[bool]) -> set[str]:
    policies = select(uses.c.version).where(uses.c.kind == ReleaseKind.POLICY.value, *where).distinct()
    return set(connection.scalars(policies)) | reward_models_trained_on(connection, *where)
