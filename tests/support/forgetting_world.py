"""Two people who chat and rate, what the log holds of them, and a look into every table."""

from __future__ import annotations

import hashlib

from sqlalchemy import select

from services.learner.forgetting.forgetting import Forgetting
from services.learner.forgetting.orders import Answer
from services.learner.ports import Candidate, Verdict
from services.shared.domain.feedback import Comment, Comparison, Edit, Rating
from services.shared.domain.release import ReleaseKind
from services.shared.store.database import Database
from services.shared.store.tables import metadata
from tests.support.facts import TENANT, make_feedback, make_rollout, make_score, make_thumb, reward_version
from tests.support.learner_store import Fact, LearnerStore

ALICE, ALICE_OLD, BOB = (hashlib.md5(name).hexdigest() for name in (b"alice", b"alice, older key", b"bob"))
"""Pseudonyms: Alice under two keys, Bob."""

ORDER = "01993f35-90b3-7a02-b9c4-6d18e5f30a66"
ANOTHER = "01993f35-90b3-7a02-b9c4-6d18e5f30a67"

HERS = tuple(f"01993f2e-6100-7d21-8a4b-6c0d9be2f30{digit}" for digit in (1, 2, 3))
HIS = tuple(f"01993f2e-6100-7d21-8a4b-6c0d9be2f40{digit}" for digit in (1, 2))
NEVER = "01993f2e-6100-7d21-8a4b-6c0d9be2f501"
"""A rollout that Alice rated and that never came."""

SECRET = "Alice's own words"


def alices_facts() -> list[Fact]:
    """Three rollouts (one under her older pseudonym), each kind of statement, and Bob's on one of hers."""
    facts: list[Fact] = []
    for number, rollout_id in enumerate(HERS):
        rater = ALICE_OLD if number == 2 else ALICE
        rollout = make_rollout(rollout_id, seconds=20 * number, rater=rater, text=SECRET, question=f"{SECRET}?")
        facts += [rollout, make_score(rollout), make_thumb(f"a{number}", rollout=rollout_id, rater=rater)]
    facts += [
        make_feedback("a-edit", rollout=HERS[0], rater=ALICE, body=Edit(text=SECRET)),
        make_feedback("a-rating", rollout=HERS[1], rater=ALICE, body=Rating(stars=2)),
        make_feedback("a-taken-back", rollout=HERS[0], rater=ALICE, retracted=True, seconds=9),
        make_thumb("a-never", rollout=NEVER, rater=ALICE),
        make_thumb("same-id", rollout=HIS[0], rater=ALICE, up=False),
        make_feedback("b-quotes", rollout=HERS[0], rater=BOB, body=Comment(text=f"she said {SECRET}")),
        make_feedback("b-better", rollout=HIS[1], rater=BOB, body=Comparison(rejected_rollout_id=HERS[0]), seconds=5),
    ]
    return facts


def bobs_facts() -> list[Fact]:
    """Two rollouts with scores and statements; one statement has an id that Alice chose too."""
    facts: list[Fact] = []
    for rollout_id in HIS:
        rollout = make_rollout(rollout_id, rater=BOB, text="Bob's")
        facts += [rollout, make_score(rollout), make_score(rollout, version=reward_version(1), seconds=9)]
    facts += [
        make_thumb("same-id", rollout=HIS[1], rater=BOB),
        make_feedback("b-worse", rollout=HIS[1], rater=BOB, body=Comparison(rejected_rollout_id="other"), seconds=3),
    ]
    return facts


def forget(learner: LearnerStore, control_id: str = ORDER) -> Answer:
    """Alice, by both pseudonyms."""
    forgetting = Forgetting(learner.database, clock=learner.clock)
    return forgetting.forget(tenant=TENANT, rater_ids=[ALICE, ALICE_OLD], control_id=control_id)


def first_releases(learner: LearnerStore) -> None:
    """Release 0 of each kind."""
    for kind in ReleaseKind:
        learner.commits.commit_first(learner.candidate(0, kind=kind))


def claim(learner: LearnerStore, limit: int = 100) -> list[str]:
    """Rollouts claimed for the next policy."""
    live = learner.candidates.live(ReleaseKind.POLICY)
    assert live is not None
    claimed = learner.experiences.claim(
        limit=limit, policy_version=live.version, reward_model_version=reward_version(0)
    )
    return [experience.rollout.rollout_id for experience in claimed]


def release(learner: LearnerStore, candidate: Candidate) -> Candidate:
    """Submitted, passed, committed."""
    learner.clock.advance(1)
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, Verdict(passed=True, lines=("ok",)))
    return candidate


def reward_candidate(learner: LearnerStore, number: int, said: dict[str, str]) -> Candidate:
    """A reward model trained on statements {rollout id: feedback id}."""
    return learner.candidate(
        number, kind=ReleaseKind.REWARD_MODEL, rollouts=tuple(said), feedback=tuple(dict.fromkeys(said.values()))
    )


def policy_candidate(learner: LearnerStore, number: int, rollouts: list[str], *, reward_model: int = 0) -> Candidate:
    """A policy trained on claimed rollouts."""
    return learner.candidate(number, rollouts=tuple(rollouts), reward_model=reward_model)


def traces(database: Database, texts: tuple[str, ...], *, but: frozenset[str] = frozenset()) -> list[str]:
    """Tables and columns, of all there are, whose values hold one of the texts in any form."""
    found: list[str] = []
    with database.read() as connection:
        for table in metadata.sorted_tables:
            if table.name in but:
                continue
            for row in connection.execute(select(table)).mappings():
                for name, value in row.items():
                    shown = value if isinstance(value, bytes) else str(value).encode()
                    found += [f"{table.name}.{name}: {text}" for text in texts if text.encode() in shown]
    return found
