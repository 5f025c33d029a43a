"""kill -9 of each of the four services and of the broker in turn, its whole process group, under load.

Plan: the loop runs with scripted engine, scorer and trainer on a real broker while users chat and send thumbs. Each
service in turn is killed with SIGKILL and restarted by the supervisor; before the next kill it must be ready again and
a policy must have been released since. The same then happens to the broker. Then users stop, and everything is
stopped in good order.
Pass: every thumb that a client saw acknowledged is in the store, none twice; each experience was trained at most once
in the published lineage; after each kill new policies were released.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select

from services.embedded.supervisor import Supervisor
from services.shared.store import tables
from services.shared.store.database import Database, open_database
from services.simulate.journal import Journal, read_thumbs
from tests.support.loop import LearnerProbe, crowd_of, eventually

ROOMS = ("gateway", "generator", "reward", "learner")


@pytest.mark.embedded_alone  # on Apache Kafka: tests/integration/chaos
@pytest.mark.timeout(900)
async def test_killing_each_service_loses_no_acknowledged_thumb(scripted_loop: Supervisor, tmp_path: Path) -> None:
    probe = LearnerProbe(scripted_loop.plan)
    crowd, journal = crowd_of(scripted_loop.plan, tmp_path / "journal.jsonl")
    users = asyncio.create_task(crowd.run())
    await eventually(lambda: probe.published() >= 2, within_s=60, what="a first trained release")
    for room in ROOMS:
        await kill_and_go_on(scripted_loop, room, probe, journal)
    await kill_broker_and_go_on(scripted_loop, probe, journal)
    crowd.stop()
    await users
    journal.close()
    acknowledged = [thumb.feedback_id for thumb in read_thumbs(journal.path)]
    assert len(acknowledged) > 20, "too little load to say anything"
    with opened(tmp_path / "store.db") as database:
        await eventually(
            lambda: set(acknowledged) <= set(held_by_slots(database)),
            within_s=90,
            what="acknowledged thumbs stored",
        )
        assert set((await asyncio.to_thread(scripted_loop.stop)).values()) == {0}
        held = held_by_slots(database)
        assert len(held) == len(set(held)), "a thumb that counts twice"
        assert_trained_at_most_once(database)


async def kill_and_go_on(loop: Supervisor, room: str, probe: LearnerProbe, journal: Journal) -> None:
    """One kill; returns when the room is ready again and the loop has released a policy since."""
    releases, thumbs = await released_so_far(probe.published), journal.counts.thumbs_acknowledged
    loop.kill(room)
    await eventually(lambda: loop.restarts()[room] >= 1, within_s=60, what=f"{room} is started again")
    await eventually(lambda: loop.is_ready(room), within_s=60, what=f"{room} is ready again")
    await goes_on(probe, journal, releases, thumbs, room)


async def kill_broker_and_go_on(loop: Supervisor, probe: LearnerProbe, journal: Journal) -> None:
    """The same with the broker, which no room notices by ending."""
    loop.kill_broker()
    await eventually(lambda: loop.restarts()["broker"] >= 1, within_s=60, what="the broker is started again")
    releases, thumbs = await released_so_far(probe.published), journal.counts.thumbs_acknowledged
    await goes_on(probe, journal, releases, thumbs, "broker")


async def released_so_far(published: Callable[[], int]) -> int:
    """How many policies there are. A learner that does not answer just now is asked again: 0, its silence, would let
    any policy pass for a new one, and from release 0 on there is always one.
    """
    answers: list[int] = []

    def answered() -> bool:
        answers.append(published())
        return answers[-1] > 0

    await eventually(answered, within_s=60, what="an answer of the learner")
    return answers[-1]


async def test_a_learner_that_does_not_answer_is_asked_again() -> None:
    answers = iter([0, 0, 7, 8])
    assert await released_so_far(lambda: next(answers)) == 7


async def goes_on(probe: LearnerProbe, journal: Journal, releases: int, thumbs: int, killed: str) -> None:
    """There are more policies and thumbs than so many."""
    await eventually(
        lambda: probe.published() > releases and journal.counts.thumbs_acknowledged > thumbs,
        within_s=180,
        what=f"the loop goes on after the kill of the {killed}",
    )


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """The loop's store, beside the learner."""
    database = open_database(f"sqlite:///{path}")
    try:
        yield database
    finally:
        database.close()


def held_by_slots(database: Database) -> list[str]:
    """Feedback ids, one for each slot. A thumb that was stored and whose acknowledgement a kill cut off is among them:
    so ids are compared, and not how many there are.
    """
    with database.read() as connection:
        return list(connection.scalars(select(tables.feedback_slots.c.feedback_id)))


def assert_trained_at_most_once(database: Database) -> None:
    """No experience stands in the batches of two published policies."""
    uses, releases = tables.uses, tables.releases
    twice = (
        select(uses.c.rollout_id)
        .join(releases, releases.c.version == uses.c.version)
        .where(releases.c.kind == "policy", releases.c.publish_time.is_not(None))
        .group_by(uses.c.rollout_id)
        .having(func.count(func.distinct(uses.c.version)) > 1)
    )
    with database.read() as connection:
        used = connection.scalar(select(func.count()).select_from(uses))
        assert used
        assert list(connection.scalars(twice)) == []
