"""Which releases learned from a person, and what becomes of candidates that were about to be one.

`uses` is the truth of what trained what, and its rows stay: they are ids. A release *learned from* a person when its
batch or its training set held one of their rollouts or statements, or (a policy) when a reward model scored its batch
that had. What trained it is gone, so it cannot be trained again from what the store holds.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, insert, select, tuple_, update

from services.learner.forgetting.person import Person
from services.learner.forgetting.tombstones import Subject, forgotten_ids
from services.learner.ports import FORGOTTEN_LINE, Candidate, Verdict
from services.learner.state.experience_moves import move
from services.learner.state.release_rows import candidate_from, decided, release_row
from services.learner.state.training_sets import reward_models_trained_on
from services.shared.domain.errors import FailedPrecondition
from services.shared.domain.events import Clock
from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.store.tables import candidates, experiences, feedback, releases, tombstones, uses
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
    through = select(releases.c.version).where(
        releases.c.reward_model_version.in_(
            select(releases.c.version).where(
                releases.c.kind == ReleaseKind.REWARD_MODEL.value, releases.c.version.in_(sorted(direct))
            )
        ),
        releases.c.state != ReleaseState.REFUSED.value,
    )
    every = direct | set(connection.scalars(through))
    order = (releases.c.commit_time, releases.c.kind.desc(), releases.c.number)
    return list(connection.scalars(select(releases.c.version).where(releases.c.version.in_(every)).order_by(*order)))


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
        if rollouts or set(said) - _still_said(connection, candidate, said):
            raise FailedPrecondition(
                f"{candidate.version} learned from somebody who has been forgotten since; train again without.",
                reason=FORGOTTEN,
            )


def _still_said(connection: Connection, candidate: Candidate, feedback_ids: Iterable[str]) -> set[str]:
    """Ids of forgotten statements that somebody else has chosen too, for a statement that the candidate may have."""
    found: set[str] = set()
    wanted = sorted(feedback_ids)
    for some in chunks(list(candidate.rollout_ids)):
        query = select(feedback.c.feedback_id).where(
            feedback.c.rollout_id.in_(some), feedback.c.feedback_id.in_(wanted)
        )
        found.update(connection.scalars(query))
    return found


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
