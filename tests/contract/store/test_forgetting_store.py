"""What is left of a person in the store: nothing but ids in tombstones, orders and lineages."""

from __future__ import annotations

import random
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from services.learner.forgetting.forgetting import Forgetting
from services.learner.forgetting.tombstones import Subject, forgotten_ids
from services.learner.ports import Candidate, Verdict
from services.learner.state.dump import canonical_dump
from services.learner.state.release_rows import release_row
from services.shared.domain.errors import Conflict, FailedPrecondition, InvalidInput, NotFound
from services.shared.domain.release import ReleaseKind, ReleaseState
from services.shared.store.database import Database
from services.shared.store.tables import candidates, experiences, releases, tombstones, uses
from services.shared.store.upsert import CHUNK
from tests.support.facts import TENANT, at, make_feedback, make_rollout, make_score, make_thumb, policy_version
from tests.support.forgetting_world import (
    ALICE,
    ALICE_OLD,
    ANOTHER,
    BOB,
    HERS,
    HIS,
    NEVER,
    ORDER,
    SECRET,
    alices_facts,
    bobs_facts,
    claim,
    first_releases,
    forget,
    policy_candidate,
    release,
    reward_candidate,
    traces,
)
from tests.support.learner_store import LearnerStore, ManualClock, ingest_facts
from tests.support.stores import Stores

RECORDS = frozenset({"tombstones", "controls"})
"""Tables that must know whom to keep out."""
LINEAGE = frozenset({"uses", "candidates"})
"""Tables that say by ids what trained what."""


def test_nothing_of_the_person_is_left_in_any_table(database: Database, learner: LearnerStore) -> None:
    first_releases(learner)
    ingest_facts(database, learner.clock, alices_facts() + bobs_facts())
    release(learner, policy_candidate(learner, 1, claim(learner)))
    assert traces(database, (ALICE,), but=RECORDS) and traces(database, (SECRET,), but=RECORDS)
    forget(learner)
    assert traces(database, (ALICE, ALICE_OLD, SECRET), but=RECORDS) == []
    assert traces(database, (*HERS, NEVER), but=RECORDS | LINEAGE) == []
    assert traces(database, (SECRET,)) == []


def test_other_peoples_rows_are_as_if_the_person_had_never_been(stores: Stores, clock: ManualClock) -> None:
    dumps = []
    for name, together in (("both", True), ("bob", False)):
        database = stores.open(name)
        learner = LearnerStore(database, clock)
        ingest_facts(database, clock, bobs_facts() + (alices_facts() if together else []))
        if together:
            forget(learner)
        dumps.append(canonical_dump(database))
    assert dumps[0] == dumps[1]
    assert any("b-worse" in line for line in dumps[0] if line.startswith("feedback_slots"))


@pytest.mark.parametrize("seed", range(3))
def test_reading_the_log_again_brings_nothing_back(
    stores: Stores, database: Database, learner: LearnerStore, seed: int
) -> None:
    """In any order, into the same store, and into a new one that has the tombstones alone."""
    everything = alices_facts() + bobs_facts()
    ingest_facts(database, learner.clock, everything)
    forget(learner)
    before = canonical_dump(database)
    chance = random.Random(seed)
    chance.shuffle(everything)
    new = stores.open("new")
    with database.read() as connection:
        kept = [row._asdict() for row in connection.execute(select(tombstones))]
    with new.write() as connection:
        # Of rollouts no tombstone is copied: those must be found by their raters, whatever came first.
        connection.execute(insert(tombstones), [row for row in kept if row["subject"] != Subject.ROLLOUT.value])
    while everything:
        size = chance.randint(1, 5)
        for store in (database, new):
            ingest_facts(store, learner.clock, everything[:size])
        everything = everything[size:]
    assert canonical_dump(database) == before
    assert canonical_dump(new) == before


def test_the_same_order_again_gives_the_same_answer(database: Database, learner: LearnerStore) -> None:
    ingest_facts(database, learner.clock, alices_facts() + bobs_facts())
    first = forget(learner)
    assert (first.rollouts, first.feedback) == (3, 10)
    learner.clock.advance(5)
    before = canonical_dump(database)
    assert forget(learner) == first
    assert canonical_dump(database) == before
    with pytest.raises(Conflict):
        Forgetting(database, clock=learner.clock).forget(tenant=TENANT, rater_ids=[BOB], control_id=ORDER)


def test_another_order_for_the_same_person_names_the_same_versions(database: Database, learner: LearnerStore) -> None:
    first_releases(learner)
    ingest_facts(database, learner.clock, alices_facts())
    release(learner, policy_candidate(learner, 1, claim(learner)))
    first = forget(learner)
    again = forget(learner, ANOTHER)
    assert first.versions == again.versions == (policy_version(1),)
    assert (again.rollouts, again.feedback) == (0, 0)


def test_versions_that_learned_directly_and_through_a_reward_model(database: Database, learner: LearnerStore) -> None:
    first_releases(learner)
    ingest_facts(database, learner.clock, alices_facts() + bobs_facts())
    on_his = release(learner, reward_candidate(learner, 1, {HIS[1]: "same-id"}))
    on_hers = release(learner, reward_candidate(learner, 2, {HERS[0]: "a0", HIS[1]: "same-id"}))
    mine = claim(learner)
    untouched = release(learner, policy_candidate(learner, 1, [HIS[0]], reward_model=1))
    through = release(learner, policy_candidate(learner, 2, [HIS[1]], reward_model=2))
    direct = release(learner, policy_candidate(learner, 3, [HERS[1]], reward_model=1))
    assert set(mine) == {*HERS, *HIS}
    answer = forget(learner)
    assert answer.versions == (on_hers.version, through.version, direct.version)
    assert on_his.version not in answer.versions and untouched.version not in answer.versions
    with database.read() as connection:
        assert connection.scalar(select(uses.c.version).where(uses.c.rollout_id == HERS[1])) == direct.version


def test_however_many_versions_learned_no_statement_names_them_all(database: Database, learner: LearnerStore) -> None:
    """PostgreSQL takes 65,535 parameters. Half of the versions learned directly, half through reward models."""
    first_releases(learner)
    ingest_facts(database, learner.clock, alices_facts())
    made: list[tuple[int, Candidate]] = []
    for number in range(1, CHUNK + 2):
        reward_model = learner.candidate(number, kind=ReleaseKind.REWARD_MODEL, rollouts=(HERS[0],), feedback=("a0",))
        made += [(number, reward_model), (number, learner.candidate(number, reward_model=number))]
    verdict = Verdict(passed=True, lines=())
    rows = [release_row(one, verdict, ReleaseState.COMMITTED, at(2000 - number // 4)) for number, one in made]
    used = {"rollout_id": HERS[0], "feedback_id": "", "kind": ReleaseKind.REWARD_MODEL.value, "tenant": TENANT}
    taught = [{"version": one.version, **used} for _, one in made if one.kind is ReleaseKind.REWARD_MODEL]
    with database.write() as connection:
        connection.execute(insert(releases), rows)
        connection.execute(insert(uses), taught)
    most = 0

    def count(_connection: Any, _cursor: Any, _statement: str, values: Any, _context: Any, many: bool) -> None:
        nonlocal most
        most = most if many else max(most, len(values))

    event.listen(database.engine, "before_cursor_execute", count)
    learned = forget(learner).versions
    event.remove(database.engine, "before_cursor_execute", count)
    made.sort(key=lambda item: (-(item[0] // 4), item[1].kind is ReleaseKind.POLICY, item[0]))
    assert learned == tuple(one.version for _, one in made)
    assert most < CHUNK + 10


def test_a_rollout_that_comes_late_takes_its_early_score_with_it(database: Database, learner: LearnerStore) -> None:
    late = make_rollout(HERS[0], rater=ALICE, text=SECRET)
    ingest_facts(database, learner.clock, [make_score(late), make_thumb("b", rollout=HERS[0], rater=BOB)])
    assert forget(learner).rollouts == 0
    assert traces(database, (HERS[0],))  # nobody can know yet whose it is
    ingest_facts(database, learner.clock, [late])
    assert traces(database, (HERS[0],), but=RECORDS) == []
    ingest_facts(database, learner.clock, [make_score(late), make_thumb("b", rollout=HERS[0], rater=BOB)])
    assert traces(database, (HERS[0],), but=RECORDS) == []


def test_another_tenants_pseudonym_is_another_person(database: Database, learner: LearnerStore) -> None:
    elsewhere = make_rollout("r-elsewhere", rater=ALICE, tenant="other")
    ingest_facts(database, learner.clock, [elsewhere, make_score(elsewhere)])
    before = canonical_dump(database)
    assert forget(learner).rollouts == 0
    assert canonical_dump(database) == before
    ingest_facts(database, learner.clock, [make_thumb("f", rollout="r-elsewhere", rater=ALICE, tenant="other")])
    assert any(line.startswith("feedback_slots") for line in canonical_dump(database))


def test_a_batch_that_held_the_person_makes_no_release(database: Database, learner: LearnerStore) -> None:
    first_releases(learner)
    ingest_facts(database, learner.clock, alices_facts() + bobs_facts())
    ids = claim(learner)
    forget(learner)
    with pytest.raises(FailedPrecondition) as refused:
        learner.candidates.submit(policy_candidate(learner, 1, ids))
    assert refused.value.reason == "EXPERIENCE_FORGOTTEN"
    learner.experiences.unclaim(ids)
    assert set(claim(learner)) == set(HIS)


def test_a_candidate_that_waits_for_its_verdict_is_refused(database: Database, learner: LearnerStore) -> None:
    first_releases(learner)
    ingest_facts(database, learner.clock, alices_facts() + bobs_facts())
    waiting = policy_candidate(learner, 1, claim(learner))
    reward = reward_candidate(learner, 1, {HERS[0]: "a0", HIS[1]: "same-id"})
    harmless = reward_candidate(learner, 2, {HIS[1]: "same-id"})
    for candidate in (waiting, reward, harmless):
        learner.candidates.submit(candidate)
    forget(learner)
    for candidate in (waiting, reward):
        verdict = learner.candidates.verdict(candidate.version)
        assert verdict is not None and verdict.forgotten
        learner.commits.commit(candidate, verdict)  # the releaser was at it; it comes too late
    assert [candidate.version for candidate in learner.candidates.undecided()] == [harmless.version]
    live = learner.candidates.live(ReleaseKind.POLICY)
    assert live is not None and live.version == policy_version(0)
    with database.read() as connection:
        states = {row.rollout_id: row.state for row in connection.execute(select(experiences))}
        assert connection.scalar(select(uses.c.version).where(uses.c.version == waiting.version)) is None
        assert connection.scalar(select(candidates.c.passed).where(candidates.c.version == waiting.version)) is False
    assert states == dict.fromkeys(HIS, "open")


def test_a_reward_model_trained_on_a_deleted_statement_is_refused(database: Database, learner: LearnerStore) -> None:
    """Also where the rollout is another's, and although Bob chose the same feedback id elsewhere."""
    first_releases(learner)
    ingest_facts(database, learner.clock, alices_facts() + bobs_facts())
    forget(learner)
    with pytest.raises(FailedPrecondition):
        learner.candidates.submit(reward_candidate(learner, 1, {HIS[0]: "same-id"}))
    learner.candidates.submit(reward_candidate(learner, 2, {HIS[1]: "same-id"}))


def test_what_is_asked_wrongly(database: Database, learner: LearnerStore) -> None:
    forgetting = Forgetting(database, clock=learner.clock)
    for tenant, raters, control_id in (
        ("", [ALICE], ORDER),
        (TENANT, [], ORDER),
        (TENANT, [""], ORDER),
        (TENANT, [str(number) for number in range(17)], ORDER),
        (TENANT, [ALICE], "not-a-uuid"),
        (TENANT, [ALICE], "550e8400-e29b-41d4-a716-446655440000"),
    ):
        with pytest.raises(InvalidInput):
            forgetting.forget(tenant=tenant, rater_ids=raters, control_id=control_id)
    with pytest.raises(NotFound):
        forgetting.progress(ORDER)


def test_somebody_nobody_knows_is_kept_out_from_now_on(database: Database, learner: LearnerStore) -> None:
    answer = forget(learner)
    assert (answer.rollouts, answer.feedback, answer.versions) == (0, 0, ())
    rollout = make_rollout(HERS[0], rater=ALICE)
    ingest_facts(database, learner.clock, [rollout, make_feedback("f", rollout=HERS[0], rater=ALICE)])
    assert canonical_dump(database) == []
    with database.read() as connection:
        found = forgotten_ids(connection, tenant=TENANT, subject=Subject.RATER, ids=[ALICE, BOB])
    assert found == {ALICE: ORDER}
