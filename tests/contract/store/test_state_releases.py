"""Commits, refusals, rollbacks: all or nothing, at most once along a lineage, under one epoch."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from services.learner.ports import Verdict
from services.learner.state import release_commits
from services.shared.contracts.policies import decode_announcement
from services.shared.domain.errors import FailedPrecondition, Fenced, NotFound
from services.shared.domain.release import AnnouncementReason, ReleaseKind, ReleaseState
from services.shared.store.database import Database
from services.shared.store.tables import announcements, candidates, outbox, releases, uses
from tests.support.facts import make_rollout, make_score, make_thumb, policy_version, reward_version
from tests.support.learner_store import LearnerStore, ManualClock, ingest_facts

YES = Verdict(passed=True, lines=("ok",))
NO = Verdict(passed=False, lines=("REFUSED kl_per_answer 9, at most 6",))


def fill(learner: LearnerStore, *names: str) -> None:
    for index, name in enumerate(names):
        rollout = make_rollout(name, seconds=index)
        thumb = make_thumb(f"f-{name}", rollout=name, seconds=index + 2)
        ingest_facts(learner.database, learner.clock, [rollout, make_score(rollout), thumb])


def train(learner: LearnerStore, number: int, *, parent: int, take: int = 2) -> tuple[str, ...]:
    """Claims, submits and commits policy `number`; its rollouts."""
    claimed = learner.experiences.claim(
        limit=take, policy_version=policy_version(parent), reward_model_version=reward_version(0)
    )
    names = tuple(experience.rollout.rollout_id for experience in claimed)
    thumbs = tuple(experience.thumb_feedback_id for experience in claimed)
    candidate = learner.candidate(number, parent=parent, rollouts=names, feedback=thumbs)
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, YES)
    return names


def count(database: Database, table: Any) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def states(learner: LearnerStore) -> dict[str, str]:
    with learner.database.read() as connection:
        return {row.version: row.state for row in connection.execute(select(releases))}


def ready(learner: LearnerStore, version: int) -> int:
    return learner.experiences.ready_count(policy_version=policy_version(version))


class TestCommit:
    def test_writes_release_uses_claims_and_outbox_together(self, learner: LearnerStore) -> None:
        learner.commits.commit_first(learner.candidate(0))
        fill(learner, "r1", "r2", "r3")
        assert train(learner, 1, parent=0) == ("r3", "r2")
        live = learner.candidates.live(ReleaseKind.POLICY)
        assert live is not None and live.version == policy_version(1) and live.state is ReleaseState.COMMITTED
        assert learner.candidates.verdict(policy_version(1)) == YES
        with learner.database.read() as connection:
            used = connection.execute(select(uses).order_by(uses.c.rollout_id)).all()
            events = [decode_announcement(value) for value in connection.scalars(select(outbox.c.value))]
        assert [(row.rollout_id, row.feedback_id, row.tenant) for row in used] == [
            ("r2", "f-r2", "default"),
            ("r3", "f-r3", "default"),
        ]
        assert [(event.sequence, event.version, event.reason) for event in events] == [
            (1, policy_version(0), AnnouncementReason.RELEASE),
            (2, policy_version(1), AnnouncementReason.RELEASE),
        ]
        assert ready(learner, 1) == 1

    @pytest.mark.parametrize("step", ["_use_rows", "_use_up", "_write_announcement"])
    def test_killed_between_steps_leaves_nothing_half(
        self, learner: LearnerStore, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        learner.commits.commit_first(learner.candidate(0))
        fill(learner, "r1", "r2")
        learner.experiences.claim(limit=2, policy_version=policy_version(0), reward_model_version=reward_version(0))
        candidate = learner.candidate(1, rollouts=("r1", "r2"))
        learner.candidates.submit(candidate)

        def die(*_: object) -> None:
            raise SystemExit("killed")

        with monkeypatch.context() as patch:
            patch.setattr(release_commits, step, die)
            with pytest.raises(SystemExit):
                learner.commits.commit(candidate, YES)
        assert (count(learner.database, releases), count(learner.database, uses)) == (1, 0)
        assert (count(learner.database, announcements), count(learner.database, outbox)) == (1, 1)
        assert learner.candidates.verdict(candidate.version) is None
        learner.commits.commit(candidate, YES)
        assert learner.candidates.verdict(candidate.version) == YES

    def test_again_changes_nothing(self, learner: LearnerStore) -> None:
        first = learner.candidate(0)
        learner.commits.commit_first(first)
        learner.commits.commit_first(first)
        candidate = learner.candidate(1)
        for _ in range(2):
            learner.candidates.submit(candidate)
            learner.commits.commit(candidate, YES)
            learner.commits.refuse(candidate, NO)
        assert count(learner.database, outbox) == 2
        assert states(learner)[candidate.version] == "committed"

    def test_an_experience_that_was_taken_away_cannot_be_used(self, learner: LearnerStore) -> None:
        learner.commits.commit_first(learner.candidate(0))
        fill(learner, "r1")
        with pytest.raises(Fenced):
            learner.candidates.submit(learner.candidate(1, rollouts=("r1",)))
        assert count(learner.database, candidates) == 1

    def test_an_old_leader_can_write_nothing(
        self, learner: LearnerStore, database: Database, clock: ManualClock
    ) -> None:
        learner.commits.commit_first(learner.candidate(0))
        candidate = learner.candidate(1)
        learner.candidates.submit(candidate)
        LearnerStore(database, clock)
        for write in (
            lambda: learner.commits.commit(candidate, YES),
            lambda: learner.commits.refuse(candidate, NO),
            lambda: learner.commits.roll_back(policy_version(0)),
            lambda: learner.commits.announce_again(ReleaseKind.POLICY),
        ):
            with pytest.raises(Fenced):
                write()
        assert count(database, outbox) == 1

    def test_numbers_go_on_past_refused_ones(self, learner: LearnerStore) -> None:
        assert learner.candidates.next_number(ReleaseKind.POLICY) == 0
        learner.commits.commit_first(learner.candidate(0))
        candidate = learner.candidate(1)
        learner.candidates.submit(candidate)
        assert learner.candidates.next_number(ReleaseKind.POLICY) == 2
        learner.commits.refuse(candidate, NO)
        assert learner.candidates.next_number(ReleaseKind.POLICY) == 2
        assert learner.candidates.next_number(ReleaseKind.REWARD_MODEL) == 0


def test_a_refusal_is_kept_and_discards_the_batch(learner: LearnerStore) -> None:
    learner.commits.commit_first(learner.candidate(0))
    fill(learner, "r1", "r2")
    learner.experiences.claim(limit=1, policy_version=policy_version(0), reward_model_version=reward_version(0))
    candidate = learner.candidate(1, rollouts=("r2",))
    learner.candidates.submit(candidate)
    learner.commits.refuse(candidate, NO)
    assert learner.candidates.verdict(candidate.version) == NO
    assert states(learner)[candidate.version] == "refused"
    assert count(learner.database, uses) == 0
    live = learner.candidates.live(ReleaseKind.POLICY)
    assert live is not None and live.version == policy_version(0)
    assert ready(learner, 0) == 1


def test_a_reward_models_training_set_stays_open(learner: LearnerStore) -> None:
    learner.commits.commit_first(learner.candidate(0))
    learner.commits.commit_first(learner.candidate(0, kind=ReleaseKind.REWARD_MODEL))
    fill(learner, "r1", "r2")
    names, thumbs = ("r1", "r2"), ("f-r1", "f-r2")
    candidate = learner.candidate(1, kind=ReleaseKind.REWARD_MODEL, rollouts=names, feedback=thumbs)
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, YES)
    assert ready(learner, 0) == 2
    assert count(learner.database, uses) == 2


class TestRollback:
    def test_what_the_reverted_used_is_ready_again(self, learner: LearnerStore) -> None:
        learner.commits.commit_first(learner.candidate(0))
        fill(learner, "r1", "r2", "r3", "r4")
        train(learner, 1, parent=0)
        train(learner, 2, parent=1)
        assert ready(learner, 2) == 0
        said = learner.commits.roll_back(policy_version(1))
        assert (said.version, said.sequence, said.reason) == (policy_version(1), 4, AnnouncementReason.ROLLBACK)
        assert states(learner)[policy_version(2)] == "rolled_back"
        assert ready(learner, 1) == 2
        live = learner.candidates.live(ReleaseKind.POLICY)
        assert live is not None and live.version == policy_version(1)

    def test_along_the_live_lineage_each_experience_is_used_at_most_once(self, learner: LearnerStore) -> None:
        learner.commits.commit_first(learner.candidate(0))
        fill(learner, "r1", "r2", "r3", "r4")
        train(learner, 1, parent=0)
        train(learner, 2, parent=1)
        learner.commits.roll_back(policy_version(1))
        train(learner, 3, parent=1)  # uses again what 2 had used
        learner.commits.roll_back(policy_version(2))  # forward again, beside 3
        assert states(learner) == {
            policy_version(0): "committed",
            policy_version(1): "committed",
            policy_version(2): "published",
            policy_version(3): "rolled_back",
        }
        assert ready(learner, 2) == 0
        with learner.database.read() as connection:
            used = connection.execute(
                select(uses.c.rollout_id).where(uses.c.version.in_([policy_version(1), policy_version(2)]))
            ).all()
        assert len(used) == len(set(used)) == 4

    def test_what_had_become_too_old_is_fresh_again(self, learner: LearnerStore) -> None:
        learner.commits.commit_first(learner.candidate(0))
        fill(learner, "r1")
        for number in (1, 2, 3):
            candidate = learner.candidate(number)
            learner.candidates.submit(candidate)
            learner.commits.commit(candidate, YES)
        assert not learner.experiences.claim(
            limit=1, policy_version=policy_version(3), reward_model_version=reward_version(0)
        )
        learner.commits.roll_back(policy_version(0))
        assert ready(learner, 0) == 1

    def test_what_never_was_live_cannot_be_put_back(self, learner: LearnerStore) -> None:
        learner.commits.commit_first(learner.candidate(0))
        candidate = learner.candidate(1)
        learner.candidates.submit(candidate)
        learner.commits.refuse(candidate, NO)
        with pytest.raises(FailedPrecondition):
            learner.commits.roll_back(candidate.version)
        with pytest.raises(NotFound):
            learner.commits.roll_back("p-0001-000099-00000000")
