"""One token, three hundred ids, the whole way: HTTP, the log, ingest, the store.

Plan: a gateway on the broker of `--broker`, its limits for a rater raised. With the token of one answer it gets a thumb
300 times, each under an id of its own, up and down in turns, many at a time. Ingest reads the topic; the answer comes.
Pass: every one is accepted and in the store; one slot, held by the greatest of what was said; one thumb is counted.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import select

from services.learner.state.queries.totals import read_totals
from services.shared.bus.interface import OutgoingEvent
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.topics import ROLLOUTS, load_topic_pages
from services.shared.settings.model import BusSettings
from services.shared.store.database import Database
from services.shared.store.tables import experiences, feedback, feedback_slots
from tests.support.brokers import TOLD_WITHIN_S, bus_with_topics
from tests.support.facts import make_rollout
from tests.support.gateway import running_gateway
from tests.support.learner_store import ManualClock, make_ingest, open_test_database
from tests.support.patience import eventually

IDS, AT_ONCE = 300, 20


async def test_many_ids_of_one_token_count_once(bus_settings: BusSettings, tmp_path: Path) -> None:
    bus = bus_with_topics(bus_settings, load_topic_pages().values())
    limits = {"rater_burst": 2 * IDS, "rater_statements_per_s": 1000.0}
    async with running_gateway(tmp_path, access=limits, log=bus, spool={"patience_s": TOLD_WITHIN_S}) as gateway:
        choice = await gateway.choice()
        turns = asyncio.Semaphore(AT_ONCE)

        async def say(number: int) -> int:
            async with turns:
                answer = await gateway.thumb(
                    choice["feedback_token"], "up" if number % 2 else "down", feedback_id=f"f{number}"
                )
            assert (answer.status_code, answer.json()["state"]) == (200, "accepted"), answer.text
            return int(answer.json()["revision"])

        told = await asyncio.gather(*(say(number) for number in range(IDS)))
        database = open_test_database(tmp_path, "learner.db")
        await asyncio.to_thread(take_in, bus_settings, database, choice["rollout_id"])
    with database.read() as connection:
        rows = connection.execute(select(feedback)).all()
        slot = connection.execute(select(feedback_slots)).one()
        assert connection.scalars(select(experiences.c.rated)).all() == [True]
    assert {row.feedback_id: row.revision for row in rows} == {f"f{number}": told[number] for number in range(IDS)}
    greatest = max(rows, key=lambda row: (row.revision, row.retracted, row.digest, row.feedback_id))
    assert (slot.feedback_id, slot.up) == (greatest.feedback_id, greatest.body["up"])
    totals = read_totals(database)
    assert totals.thumbs_up + totals.thumbs_down == 1
    database.close()


def take_in(settings: BusSettings, database: Database, rollout_id: str) -> None:
    """Ingest reads until all is there, the rollout too."""
    bus = bus_with_topics(settings, [])
    event = OutgoingEvent(topic=ROLLOUTS, key=rollout_id, value=encode_rollout(make_rollout(rollout_id)))
    bus.publisher("generator").send(event).result(timeout=TOLD_WITHIN_S)
    ingest = make_ingest(bus, database, ManualClock())

    def all_there() -> bool:
        ingest.step()
        with database.read() as connection:
            known = len(connection.execute(select(feedback.c.feedback_id)).all())
            return known == IDS and connection.scalar(select(experiences.c.end_time)) is not None

    eventually(all_there, within_s=60, what="all in the store")
    ingest.stop()
    bus.close()
