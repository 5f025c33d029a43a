"""Claims: what is ready, who has it, and that nobody has it twice."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import select

from services.learner.state.eligibility import ineligible_reason
from services.learner.state.fencing import LEADER
from services.shared.domain.errors import Fenced
from services.shared.domain.rollout import FinishReason, Purpose
from services.shared.store.database import Database
from services.shared.store.tables import experiences
from tests.support.facts import (
    make_feedback,
    make_rollout,
    make_score,
    make_thumb,
    policy_version,
    reward_version,
)
from tests.support.learner_store import LearnerStore, ManualClock, ingest_facts


def fill(learner: LearnerStore, *names: str, version: int = 0, rated: bool = True) -> None:
    for index, name in enumerate(names):
        rollout = make_rollout(name, seconds=index, versions=[(policy_version(version), 4)])
        ingest_facts(learner.database, learner.clock, [rollout, make_score(rollout)])
        if rated:
            ingest_facts(learner.database, learner.clock, [make_thumb(f"f-{name}", rollout=name, seconds=index + 2)])


def grow(learner: LearnerStore, to: int) -> None:
    """Policy releases 0 to `to`, each trained from the one before."""
    for number in range(to + 1):
        learner.commits.commit_first(learner.candidate(0)) if number == 0 else release(learner, number)


def release(learner: LearnerStore, number: int, **values: Any) -> None:
    from services.learner.ports import Verdict

    candidate = learner.candidate(number, **values)
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, Verdict(passed=True, lines=("ok",)))


def claim(learner: LearnerStore, limit: int = 10, version: int = 0) -> list[str]:
    found = learner.experiences.claim(
        limit=limit, policy_version=policy_version(version), reward_model_version=reward_version(0)
    )
    return [experience.rollout.rollout_id for experience in found]


def state_of(learner: LearnerStore, name: str) -> tuple[str, str]:
    query = select(experiences.c.state, experiences.c.stale_reason).where(experiences.c.rollout_id == name)
    with learner.database.read() as connection:
        row = connection.execute(query).one()
    return row.state, row.stale_reason


class TestReady:
    def test_newest_first_and_once(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        fill(learner, "r1", "r2", "r3")
        assert learner.experiences.ready_count(policy_version=policy_version(0)) == 3
        assert claim(learner, limit=2) == ["r3", "r2"]
        assert claim(learner) == ["r1"]
        assert claim(learner) == []

    def test_the_experience_is_the_whole_join(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        fill(learner, "r1")
        (experience,) = learner.experiences.claim(
            limit=1, policy_version=policy_version(0), reward_model_version=reward_version(0)
        )
        rollout = make_rollout("r1")
        score = make_score(rollout)
        assert experience.rollout == rollout
        assert (experience.thumb, experience.thumb_feedback_id, experience.staleness) == (True, "f-r1", 0)
        assert experience.reference_log_probs == score.reference_log_probs
        assert (experience.features, experience.feature_layout) == (score.features, score.feature_layout)
        assert (experience.score_mean, experience.score_spread) == (score.mean, score.spread)
        assert experience.score_terms == score.terms

    def test_another_reward_models_score_is_not_filled_in(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        fill(learner, "r1")
        (experience,) = learner.experiences.claim(
            limit=1, policy_version=policy_version(0), reward_model_version=reward_version(7)
        )
        assert (experience.score_mean, experience.score_terms) == (None, ())
        assert experience.features

    def test_unscored_is_not_ready(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        ingest_facts(learner.database, learner.clock, [make_rollout(), make_thumb()])
        assert claim(learner) == []

    def test_unrated_is_ready_after_the_wait(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        learner.clock.now = make_rollout().end_time
        fill(learner, "r1", rated=False)
        learner.clock.advance(59)
        assert claim(learner) == []
        learner.clock.advance(1)
        assert claim(learner) == ["r1"]

    def test_a_retracted_thumb_is_no_rating(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        learner.clock.now = make_rollout().end_time
        fill(learner, "r1")
        retraction = make_feedback("f2", rollout="r1", retracted=True, seconds=9)
        ingest_facts(learner.database, learner.clock, [retraction])
        assert claim(learner) == []

    def test_a_late_thumb_does_not_reach_the_policy(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        fill(learner, "r1", rated=False)
        late = make_thumb("late", rollout="r1", seconds=3700)
        ingest_facts(learner.database, learner.clock, [late])
        (experience,) = learner.experiences.claim(
            limit=1, policy_version=policy_version(0), reward_model_version=reward_version(0)
        )
        assert (experience.thumb, experience.thumb_feedback_id) == (None, "")
        assert [example.feedback_id for example in learner.experiences.rated_examples()] == ["late"]

    @pytest.mark.parametrize(
        ("values", "fits"),
        [
            ({"temperature": 0.5}, True),
            ({"temperature": 1.2}, True),
            ({"temperature": 0.49}, False),
            ({"temperature": 1.21}, False),
            ({"top_p": 0.9}, False),
            ({"top_k": 40}, False),
            ({"purpose": Purpose.LEARNER}, True),
            ({"purpose": Purpose.GATE}, False),
            ({"purpose": Purpose.SHADOW}, False),
            ({"finish_reason": FinishReason.CANCELLED}, True),
            ({"finish_reason": FinishReason.ERROR}, False),
            ({"versions": []}, False),
        ],
    )
    def test_only_plain_sampling_is_for_ppo(self, learner: LearnerStore, values: dict[str, Any], fits: bool) -> None:
        grow(learner, 0)
        rollout = make_rollout("r1", **values)
        assert (ineligible_reason(rollout) == "") is fits
        ingest_facts(learner.database, learner.clock, [rollout, make_score(rollout), make_thumb(rollout="r1")])
        assert claim(learner) == (["r1"] if fits else [])


class TestStaleness:
    def test_is_counted_along_the_ancestry(self, learner: LearnerStore) -> None:
        grow(learner, 3)
        fill(learner, "r3", version=3)
        fill(learner, "r1", version=1)
        found = learner.experiences.claim(
            limit=5, policy_version=policy_version(3), reward_model_version=reward_version(0)
        )
        assert {experience.rollout.rollout_id: experience.staleness for experience in found} == {"r3": 0, "r1": 2}

    def test_too_old_is_marked_stale(self, learner: LearnerStore) -> None:
        grow(learner, 3)
        fill(learner, "r0", version=0)
        assert learner.experiences.ready_count(policy_version=policy_version(3)) == 0
        assert claim(learner, version=3) == []
        assert state_of(learner, "r0") == ("stale", "too stale")

    def test_one_token_off_the_ancestry_is_stale(self, learner: LearnerStore) -> None:
        grow(learner, 1)
        rollout = make_rollout("mixed", versions=[(policy_version(1), 2), (policy_version(9), 2)])
        ingest_facts(learner.database, learner.clock, [rollout, make_score(rollout), make_thumb(rollout="mixed")])
        assert claim(learner, version=1) == []
        assert state_of(learner, "mixed")[0] == "stale"

    def test_a_mixed_response_is_as_old_as_its_oldest_token(self, learner: LearnerStore) -> None:
        grow(learner, 2)
        rollout = make_rollout("mixed", versions=[(policy_version(1), 2), (policy_version(2), 2)])
        ingest_facts(learner.database, learner.clock, [rollout, make_score(rollout), make_thumb(rollout="mixed")])
        (experience,) = learner.experiences.claim(
            limit=5, policy_version=policy_version(2), reward_model_version=reward_version(0)
        )
        assert experience.staleness == 1


class TestLeases:
    def test_a_lease_that_ran_out_is_open_again(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        fill(learner, "r1")
        assert claim(learner) == ["r1"]
        learner.clock.advance(601)
        assert claim(learner) == ["r1"]

    def test_unclaimed_is_open_and_discarded_is_not(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        fill(learner, "r1", "r2")
        claim(learner)
        learner.experiences.unclaim(["r1"])
        learner.experiences.discard(["r2"], reason="update skipped")
        assert claim(learner) == ["r1"]
        assert state_of(learner, "r2") == ("stale", "update skipped")

    def test_a_restart_voids_older_claims_and_fences_their_holder(
        self, learner: LearnerStore, database: Database, clock: ManualClock
    ) -> None:
        grow(learner, 0)
        fill(learner, "r1")
        assert claim(learner) == ["r1"]
        restarted = LearnerStore(database, clock)
        assert claim(restarted) == ["r1"]
        for write in (
            lambda: claim(learner),
            lambda: learner.experiences.unclaim(["r1"]),
            lambda: learner.experiences.discard(["r1"], reason="x"),
            lambda: learner.candidates.submit(learner.candidate(1, rollouts=("r1",))),
        ):
            with pytest.raises(Fenced):
                write()
        assert state_of(restarted, "r1") == ("claimed", "")

    def test_a_submitted_batch_is_held_until_its_verdict(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        fill(learner, "r1")
        claim(learner)
        learner.candidates.submit(learner.candidate(1, rollouts=("r1",)))
        learner.clock.advance(10_000)
        learner.leases.renew(LEADER, learner.epoch)
        assert claim(learner) == []

    def test_threads_that_claim_at_once_get_disjoint_experiences(self, learner: LearnerStore) -> None:
        grow(learner, 0)
        names = [f"r{number:02}" for number in range(40)]
        fill(learner, *names)
        got: list[str] = []

        def work() -> None:
            while mine := claim(learner, limit=3):
                got.extend(mine)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(got) == names


def test_rated_examples_are_the_newest_oldest_first(learner: LearnerStore) -> None:
    fill(learner, "r1", "r2", "r3")
    examples = learner.experiences.rated_examples(limit=2)
    assert [example.rollout_id for example in examples] == ["r2", "r3"]
    assert examples[0].features == make_score().features and examples[0].up is True
