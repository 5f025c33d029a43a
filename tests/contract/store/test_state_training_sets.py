"""Reward models' training sets are kept as differences, and everything that is asked of them is answered in full."""

from __future__ import annotations

from itertools import product

import pytest
from sqlalchemy import func, select, update

from services.learner.forgetting.forgetting import Forgetting
from services.learner.ports import Verdict
from services.learner.state.queries.feedback_fate import FeedbackFates
from services.learner.state.queries.releases import ReleaseViews
from services.learner.state.queries.thumb_to_token import NEVER, thumb_times
from services.learner.state.training_sets import BLOCK
from services.shared.domain.release import ReleaseKind
from services.shared.store.database import Database
from services.shared.store.tables import candidates, releases, uses
from tests.support.facts import TENANT, at, make_rollout, make_score, make_thumb, policy_version, reward_version
from tests.support.learner_store import LearnerStore, ManualClock, ingest_facts

YES = Verdict(passed=True, lines=("ok",))
NO = Verdict(passed=False, lines=("REFUSED auroc",))
THUMBS = 12
ORDER = "01993f35-90b3-7a02-b9c4-6d18e5f30a66"


@pytest.fixture
def begun(learner: LearnerStore) -> LearnerStore:
    """Both releases 0, and a dozen rated rollouts, each by a rater of its own."""
    for kind in ReleaseKind:
        learner.commits.commit_first(learner.candidate(0, kind=kind))
    for number in range(THUMBS):
        rollout = make_rollout(f"r{number}", rater=f"rater-{number}")
        thumb = make_thumb(f"f{number}", rollout=f"r{number}", rater=f"rater-{number}", seconds=10)
        ingest_facts(learner.database, learner.clock, [rollout, make_score(rollout), thumb])
    return learner


def release(
    learner: LearnerStore, number: int, thumbs: range, *, parent: int | None = None, passes: bool = True
) -> None:
    """A reward model that was trained on these."""
    candidate = learner.candidate(
        number,
        kind=ReleaseKind.REWARD_MODEL,
        parent=parent,
        rollouts=tuple(f"r{thumb}" for thumb in thumbs),
        feedback=tuple(f"f{thumb}" for thumb in thumbs),
    )
    learner.candidates.submit(candidate)
    if passes:
        learner.commits.commit(candidate, YES)
    else:
        learner.commits.refuse(candidate, NO)


def trained_into(learner: LearnerStore, thumb: int) -> list[int]:
    """Numbers of the reward models that say so of a thumb."""
    fates = FeedbackFates(learner.database, clock=learner.clock, join_window_s=3600, orphan_after_s=3600)
    versions = fates.find(tenant=TENANT, feedback_id=f"f{thumb}").reward_model_versions
    numbers = {reward_version(number): number for number in range(2 * BLOCK)}
    return [numbers[version] for version in versions]


def trained_on(learner: LearnerStore, number: int) -> set[str]:
    """As the release says it of itself."""
    return set(ReleaseViews(learner.database).one(reward_version(number))[1])


def rows(database: Database, number: int) -> int:
    query = select(func.count()).select_from(uses).where(uses.c.version == reward_version(number))
    with database.read() as connection:
        return connection.scalar(query) or 0


def test_a_release_writes_what_came_and_what_went(begun: LearnerStore) -> None:
    sets = {1: range(8), 2: range(1, 9), 3: range(1, 9), 4: range(3, 10)}
    for number, thumbs in sets.items():
        release(begun, number, thumbs)
    assert [rows(begun.database, number) for number in sets] == [8, 2, 0, 3]
    for number, thumbs in sets.items():
        assert trained_on(begun, number) == {f"r{thumb}" for thumb in thumbs}
    for thumb in range(THUMBS):
        assert trained_into(begun, thumb) == [number for number, thumbs in sets.items() if thumb in thumbs]


def test_lines_that_part_at_a_rollback_are_apart(begun: LearnerStore) -> None:
    sets = {1: range(4), 2: range(1, 6), 4: range(8), 5: range(2, 9)}
    for number, parent in ((1, 0), (2, 1)):
        release(begun, number, sets[number], parent=parent)
    release(begun, 3, range(12), parent=2, passes=False)
    begun.commits.roll_back(reward_version(1))
    for number, parent in ((4, 1), (5, 4)):
        release(begun, number, sets[number], parent=parent)
    for number, thumb in product(sets, range(THUMBS)):
        assert (number in trained_into(begun, thumb)) == (thumb in sets[number])
        assert (f"r{thumb}" in trained_on(begun, number)) == (thumb in sets[number])
    assert trained_on(begun, 3) == set()


def test_the_first_of_a_line_in_a_block_names_all(begun: LearnerStore) -> None:
    last = BLOCK - 1
    release(begun, last, range(6), parent=0)
    release(begun, BLOCK, range(1, 7), parent=last)
    release(begun, BLOCK + 1, range(2, 8), parent=BLOCK)
    release(begun, BLOCK + 2, range(8), parent=last)  # after a rollback over the block's edge
    assert [rows(begun.database, last + more) for more in range(4)] == [6, 6, 2, 8]
    assert [trained_into(begun, thumb) for thumb in (0, 1, 2, 7, 8)] == [
        [last, BLOCK + 2],
        [last, BLOCK, BLOCK + 2],
        [last, BLOCK, BLOCK + 1, BLOCK + 2],
        [BLOCK + 1, BLOCK + 2],
        [],
    ]
    assert trained_on(begun, BLOCK + 1) == {f"r{thumb}" for thumb in range(2, 8)}


def test_releases_with_rows_for_all_are_read_as_such(begun: LearnerStore) -> None:
    """As stores have them that were written before: the candidate kept its list."""
    release(begun, 1, range(4))
    release(begun, 2, range(2, 6))
    with begun.database.write() as connection:
        whole = [f"r{thumb}" for thumb in range(2, 6)]
        connection.execute(uses.delete().where(uses.c.version == reward_version(2)))
        for name in whole:
            row = {"rollout_id": name, "feedback_id": f"f{name[1:]}", "kind": "reward_model", "tenant": TENANT}
            connection.execute(uses.insert().values(version=reward_version(2), **row))
        kept = update(candidates).where(candidates.c.version == reward_version(2)).values(rollout_ids=whole)
        connection.execute(kept)
    release(begun, 3, range(3, 7))
    assert rows(begun.database, 3) == 2
    assert [trained_into(begun, thumb) for thumb in (0, 2, 3, 6)] == [[1], [1, 2], [1, 2, 3], [3]]
    assert trained_on(begun, 2) == set(whole)


@pytest.mark.parametrize("passes", [True, False])
def test_a_decided_candidate_keeps_no_list(begun: LearnerStore, passes: bool) -> None:
    release(begun, 1, range(4), passes=passes)
    query = select(candidates.c.rollout_ids, candidates.c.feedback_ids, releases.c.experiences).join(
        releases, releases.c.version == candidates.c.version
    )
    with begun.database.read() as connection:
        assert connection.execute(query.where(candidates.c.version == reward_version(1))).one() == ([], [], 4)


def test_forgetting_names_every_release_that_learned(begun: LearnerStore) -> None:
    for number, thumbs in {1: range(2), 2: range(3), 3: range(3), 4: range(1, 3), 5: range(1, 4)}.items():
        release(begun, number, thumbs)
    policy = begun.candidate(1, reward_model=3)
    begun.candidates.submit(policy)
    begun.commits.commit(policy, YES)
    forgetting = Forgetting(begun.database, clock=begun.clock)
    answer = forgetting.forget(tenant=TENANT, rater_ids=["rater-0"], control_id=ORDER)
    assert set(answer.versions) == {*(reward_version(number) for number in (1, 2, 3)), policy_version(1)}


def test_thumb_times_through_a_reward_model_further_down(begun: LearnerStore, clock: ManualClock) -> None:
    """Only those that were still in its training set got there through it."""
    for number, thumbs in {1: range(4), 2: range(1, 5), 3: range(1, 5)}.items():
        release(begun, number, thumbs)
    published = update(releases).where(releases.c.version == reward_version(1)).values(publish_time=at(15))
    with begun.database.write() as connection:
        connection.execute(published)
    policy = begun.candidate(1, reward_model=3)
    begun.candidates.submit(policy)
    begun.commits.commit(policy, YES)
    answer = make_rollout("answer", seconds=30, versions=[(policy_version(1), 2)])
    ingest_facts(begun.database, clock, [answer])
    times = {time.feedback_id: time for time in thumb_times(begun.database, now=at(1000))}
    assert [times[f"f{thumb}"].to_token_s for thumb in (0, 5)] == [NEVER, NEVER]
    assert [times[f"f{thumb}"].policy_version for thumb in (1, 4)] == [policy_version(1)] * 2
    assert [times[f"f{thumb}"].to_reward_model_s for thumb in (0, 1, 4)] == [5, 5, NEVER]


def test_thumb_times_of_the_newest_alone(begun: LearnerStore, clock: ManualClock) -> None:
    for number in range(3):
        thumb = make_thumb(f"late{number}", rollout=f"r{number}", rater="another", seconds=100 + number)
        ingest_facts(begun.database, clock, [thumb])
    newest = thumb_times(begun.database, now=at(1000), newest=2)
    assert [time.feedback_id for time in newest] == ["late1", "late2"]
    assert len(thumb_times(begun.database, now=at(1000))) == THUMBS + 3
    assert thumb_times(begun.database, now=at(5)) == []
