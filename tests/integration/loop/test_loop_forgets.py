"""A person is forgotten, everywhere, while everything runs.

Plan: on the scripted loop two people chat and rate; one also chats with `store: false`. An event of Alice's that
nobody can read lies among others in a dead-letter topic. Alice is forgotten by DELETE on the control port; who carries
that out is followed until nobody is waited for. Then she comes back, and her old token is used again.
Pass: the learner, gateway, generator and reward acknowledge; the store, the gateway's spool and the dead letters name
her no more, and others' dead letters are still there; her feedback is unknown, a new statement is refused, a new chat
is answered without a token; Bob's feedback is where it was; asking again under the same order answers the same; nothing
of `store: false` was ever in the log; without a credential nobody is forgotten.
"""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embedded.supervisor import Supervisor
from services.gateway.identity import Identifier
from services.shared.bus import open_bus
from services.shared.bus.dead_letters import read_dead_letters, read_whole
from services.shared.bus.interface import Bus, OutgoingEvent
from services.shared.bus.traces import ids_in
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, dead_letter_topic
from services.shared.ids import new_id, utc_now
from services.shared.secrets import KeyUse, load_or_create
from services.shared.settings.model import BusSettings
from tests.support.access import credential_of
from tests.support.brokers import ACK_TIMEOUT_S, TOLD_WITHIN_S
from tests.support.loop import eventually

REPLICAS = ["gateway-0", "generator-0", "learner", "reward-0"]


@pytest.mark.kafka
async def test_a_person_is_forgotten_everywhere(scripted_loop: Supervisor) -> None:
    plan = scripted_loop.plan
    control_url = f"http://127.0.0.1:{plan.ports['gateway_control']}"
    headers = {"Authorization": credential_of(plan.data_dir).authorization()}
    alice = pseudonym(plan.data_dir, "alice")
    async with (
        httpx.AsyncClient(base_url=plan.page_url, timeout=30) as web,
        httpx.AsyncClient(base_url=control_url, timeout=60) as control,
    ):
        hers, his = await chat(web, "alice"), await chat(web, "bob")
        private = await chat(web, "alice", store=False)
        assert hers["feedback_token"] and not private.get("feedback_token")
        said = [await thumb(web, answer["feedback_token"]) for answer in (hers, his)]
        assert [state.status_code for state in said] == [200, 200]
        ids = [state.json()["feedback_id"] for state in said]
        for feedback_id, answer in zip(ids, (hers, his), strict=True):
            await eventually(partial(joined, plan.page_url, feedback_id, answer), within_s=60, what="thumbs are joined")
        bus = open_bus(BusSettings(bootstrap_servers=plan.bootstrap_servers, ack_timeout_s=ACK_TIMEOUT_S))
        try:
            others = await asyncio.to_thread(leave_dead_letters, bus, alice)
            assert (await control.delete("/v1/users/alice")).status_code == 401
            order = new_id()
            path = f"/v1/users/alice?control_id={order}"
            done = await control.delete(path, headers=headers)
            assert done.status_code == 202, done.text
            answer = done.json()
            assert (answer["control_id"], answer["rollouts"], answer["feedback"]) == (order, 1, 1)
            progress = await carried_out(control, order, headers)
            assert set(REPLICAS) <= set(progress["acknowledged_by"])
            assert (await control.delete(path, headers=headers)).json() == answer
            assert store_names(plan.data_dir, alice) == []
            assert spool_names(plan.data_dir, alice) == []
            left = await asyncio.to_thread(lambda: {letter.record.value for letter in dead_letters(bus)})
            assert others <= left and not any(alice.encode() in value for value in left)
            logged = await asyncio.to_thread(rollouts_in_log, bus)
            assert hers["rollout_id"] in logged and private["rollout_id"] not in logged
        finally:
            bus.close()
        assert (await feedback_state(web, ids[0], hers["feedback_token"])).status_code == 404
        assert (await thumb(web, hers["feedback_token"])).status_code == 403
        assert not (await chat(web, "alice")).get("feedback_token")
        assert (await feedback_state(web, ids[1], his["feedback_token"])).json()["state"] == "joined"
        unknown = await control.get(f"/v1/controls/{new_id()}", headers=headers)
        assert unknown.status_code == 404


def pseudonym(data_dir: Path, user: str) -> str:
    """What the deployment calls the person."""
    rings = {use: load_or_create(data_dir / "secrets", use, utc_now) for use in KeyUse}
    identifier = Identifier(
        tenant="default",
        prompt_keys=rings[KeyUse.PROMPT],
        conversation_keys=rings[KeyUse.CONVERSATION],
        rater_keys=rings[KeyUse.RATER],
        new_id=new_id,
    )
    return identifier.rater_id(user)


async def chat(web: httpx.AsyncClient, user: str, **extra: Any) -> dict[str, Any]:
    """The `thumbloop` object of an answer."""
    body = {"model": "thumbloop", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6, "user": user}
    answer = (await web.post("/v1/chat/completions", json=body | extra)).raise_for_status().json()
    found: dict[str, Any] = answer["choices"][0]["thumbloop"]
    return found


async def thumb(web: httpx.AsyncClient, token: str) -> httpx.Response:
    return await web.post("/v1/feedback", json={"token": token, "kind": "thumb", "value": "up"})


async def feedback_state(web: httpx.AsyncClient, feedback_id: str, token: str) -> httpx.Response:
    return await web.get(f"/v1/feedback/{feedback_id}", headers={"Authorization": f"Feedback {token}"})


def joined(url: str, feedback_id: str, answer: dict[str, Any]) -> bool:
    headers = {"Authorization": f"Feedback {answer['feedback_token']}"}
    found = httpx.get(f"{url}/v1/feedback/{feedback_id}", headers=headers, timeout=10)
    return found.status_code == 200 and found.json()["state"] == "joined"


async def carried_out(control: httpx.AsyncClient, order: str, headers: dict[str, str]) -> dict[str, Any]:
    """The order's progress once nobody is waited for."""
    async with asyncio.timeout(60):
        while True:
            found = await control.get(f"/v1/controls/{order}", headers=headers)
            progress: dict[str, Any] = found.json() if found.status_code == 200 else {"waiting_for": ["?"]}
            if not progress["waiting_for"] and progress["publish_time"]:
                return progress
            await asyncio.sleep(0.2)


def leave_dead_letters(bus: Bus, alice: str) -> set[bytes]:
    """Unreadable events between one another: Alice's, and others', whose bytes are given back."""
    others = {b"\xffsomebody's", b"\xffsomebody else's", b"\xffthe last one's"}
    publisher = bus.publisher("test")
    for value in (*sorted(others)[:2], b"\xff\x0a\x20" + alice.encode(), sorted(others)[2]):
        event = OutgoingEvent(
            topic=dead_letter_topic(FEEDBACK), key="k", value=value, headers={"dlq-reason": b"NOT_PROTOBUF"}
        )
        publisher.send(event).result(TOLD_WITHIN_S)
    publisher.close(5)
    return others


def dead_letters(bus: Bus) -> list[Any]:
    return list(read_dead_letters(bus, [dead_letter_topic(FEEDBACK)]))


def rollouts_in_log(bus: Bus) -> set[str]:
    """Ids named by any record of the topic."""
    reader = bus.log_reader("test")
    try:
        return {one for record in read_whole(reader, reader.places(ROLLOUTS)) for one in ids_in(record)}
    finally:
        reader.close()


def store_names(data_dir: Path, text: str) -> list[str]:
    return _names(data_dir / "store.db", text, but=("tombstones", "controls"))


def spool_names(data_dir: Path, text: str) -> list[str]:
    return [name for path in data_dir.rglob("spool/**/*.db") for name in _names(path, text, but=("tombstones",))]


def _names(path: Path, text: str, *, but: tuple[str, ...]) -> list[str]:
    """Tables of a SQLite file with a value that holds the text."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [
            table
            for table in tables
            if table not in but
            for row in database.execute(f'SELECT * FROM "{table}"')
            for value in row
            if text.encode() in (value if isinstance(value, bytes) else str(value).encode())
        ]
    finally:
        database.close()
