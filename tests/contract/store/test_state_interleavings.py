"""Replaying events in any order, with duplicates, in batches of any size, gives the same store."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select

from services.learner.ingest.store_rollouts import store_rollouts
from services.learner.state.dump import canonical_dump, dump_digest
from services.learner.state.rows import rollout_from_row
from services.shared.contracts.rollouts import decode_rollout, encode_rollout
from services.shared.domain.feedback import Comment, Comparison, Edit, FeedbackKind, Rating, Thumb
from services.shared.domain.rollout import Rollout
from services.shared.store.database import Database
from services.shared.store.tables import rollouts
from tests.support import events
from tests.support.facts import make_feedback, make_rollout, make_score, make_thumb, policy_version, reward_version
from tests.support.learner_store import Fact, ManualClock, ingest_facts
from tests.support.stores import Stores


def history() -> list[Fact]:
    """A small life: several versions, late and early feedback, changed minds, two scores, scores of two models."""
    facts: list[Fact] = []
    for number in range(6):
        versions = [(policy_version(number // 2), 3), (policy_version(number // 2 + 1), 2)]
        rollout = make_rollout(f"r{number}", seconds=10 * number, versions=versions, raw_log_probs=number == 2)
        facts += [rollout, make_score(rollout), make_score(rollout, version=reward_version(1), mean=0.5, seconds=9)]
        facts.append(make_thumb(f"f{number}", rollout=rollout.rollout_id, up=number % 2 == 0, seconds=number))
    facts.append(make_score(make_rollout("r1"), mean=0.25, seconds=8, event="scored-again"))
    facts.append(make_thumb("f1b", rollout="r1", up=False, seconds=50))
    facts.append(make_thumb("f1c", rollout="r1", up=True, seconds=50))  # the same revision: the digest decides
    facts.append(make_feedback("f2b", rollout="r2", retracted=True, seconds=60))
    facts.append(make_feedback("f2c", rollout="r2", retracted=True, seconds=60))  # the same in all: the id decides
    facts.append(make_feedback("f2d", rollout="r2", body=Thumb(up=True), seconds=60))
    facts.append(make_feedback("f3r", rollout="r3", body=Rating(stars=4)))
    facts.append(make_feedback("f3c", rollout="r3", body=Comparison(rejected_rollout_id="r4")))
    facts.append(make_feedback("f4e", rollout="r4", body=Edit(text="Better so."), rater="rater-2"))
    facts.append(make_feedback("f4e", rollout="r4", body=Edit(text="Or so."), rater="rater-2", event="edited-again"))
    facts.append(make_feedback("f5c", rollout="r5", body=Comment(text="Hm.")))
    facts.append(make_feedback("f5d", rollout="r5", kind=FeedbackKind.COMMENT, retracted=True, seconds=70))
    facts.append(make_thumb("f9", rollout="never-comes"))
    return facts


@pytest.mark.parametrize("seed", range(8))
def test_any_interleaving_gives_the_same_dump(stores: Stores, clock: ManualClock, seed: int) -> None:
    dumps = []
    for name, shuffle in (("in-order", False), ("shuffled", True)):
        database = stores.open(name)
        facts = history()
        chance = random.Random(seed)
        if shuffle:
            facts += chance.sample(facts, 10)
            chance.shuffle(facts)
        while facts:
            size = chance.randint(1, 7)
            ingest_facts(database, clock, facts[:size])
            facts = facts[size:]
        dumps.append(canonical_dump(database))
        assert len(dump_digest(database)) == 64
    assert dumps[0] == dumps[1]
    assert any(line.startswith("experiences") and "never-comes" in line for line in dumps[0])


def test_the_dump_sees_a_difference(stores: Stores, clock: ManualClock) -> None:
    digests = set()
    for number, up in enumerate((True, False)):
        database = stores.open(f"store-{number}")
        ingest_facts(database, clock, [make_rollout(), make_thumb(up=up)])
        digests.add(dump_digest(database))
    assert len(digests) == 2


def test_a_second_arrival_changes_nothing(database: Database, clock: ManualClock) -> None:
    ingest_facts(database, clock, history())
    before = canonical_dump(database)
    ingest_facts(database, clock, history())
    assert canonical_dump(database) == before


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rollout=events.rollouts)
def test_a_rollout_comes_back_from_sql_as_it_was(database: Database, rollout: Rollout) -> None:
    decoded = decode_rollout(encode_rollout(rollout))
    with database.write() as connection:
        store_rollouts(connection, [decoded])
        row = connection.execute(select(rollouts).where(rollouts.c.rollout_id == decoded.rollout_id)).one()
        connection.rollback()
    assert rollout_from_row(row) == decoded
