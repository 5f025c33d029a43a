"""Every kind of feedback over HTTP: what it becomes, what it may not be, who may say it and how often.

Plan: with tokens of real answers, send each kind, take each back, compare answers of one request and of two, send what
is wrong in every way that the contract names, send again while the first still runs and after a restart, send too much.
Pass: right statements become events with the token's facts; wrong ones are refused by name and write nothing; the same
again answers the same; a rater who floods gets 429 with Retry-After, and nobody else does.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.learner.v1 import learner_pb2

from services.shared.domain.feedback import Comment, Comparison, Edit, FeedbackBody, FeedbackKind, Rating, Thumb
from tests.support.gateway import GatewayHarness, running_gateway

KINDS = ["thumb", "rating", "comparison", "edit", "comment"]


async def send(gateway: GatewayHarness, **body: Any) -> httpx.Response:
    return await gateway.http.post("/v1/feedback", json=body)


async def pair(gateway: GatewayHarness, **extra: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `thumbloop` objects of two answers to one request."""
    response = await gateway.chat(n=2, **extra)
    assert response.status_code == 200, response.text
    first, second = (choice["thumbloop"] for choice in response.json()["choices"])
    return first, second


def refusal(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    error = answer.json()["error"]
    assert error["message"].endswith((".", "?")), "a message is a sentence"
    return answer.status_code, error["param"], error["code"]


async def test_every_kind_becomes_an_event(gateway: GatewayHarness) -> None:
    chosen, rejected = await pair(gateway)
    assert chosen["kinds"] == KINDS
    said: list[tuple[dict[str, Any], FeedbackBody]] = [
        ({"kind": "thumb", "value": "down"}, Thumb(up=False)),
        ({"kind": "rating", "value": 4}, Rating(stars=4)),
        (
            {"kind": "comparison", "rejected_token": rejected["feedback_token"]},
            Comparison(rejected_rollout_id=rejected["rollout_id"]),
        ),
        ({"kind": "edit", "text": "Water it on Sundays. 🌱"}, Edit(text="Water it on Sundays. 🌱")),
        ({"kind": "comment", "text": "too long"}, Comment(text="too long")),
    ]
    for body, _ in said:
        answer = await send(gateway, token=chosen["feedback_token"], **body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "accepted"
    events = gateway.bus.feedback
    assert [event.body for event in events] == [body for _, body in said]
    assert [str(event.kind) for event in events] == KINDS
    assert {(event.rollout_id, event.prompt_id) for event in events} == {(chosen["rollout_id"], chosen["prompt_id"])}
    assert {event.rater_id for event in events} == {gateway.generator.requests[0].rater_id}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_is_taken_back_without_a_value(gateway: GatewayHarness, kind: str) -> None:
    token = (await gateway.choice())["feedback_token"]
    assert (await send(gateway, token=token, kind=kind, retracted=True)).status_code == 200
    (event,) = gateway.bus.feedback
    assert (event.kind, event.body, event.retracted) == (FeedbackKind(kind), None, True)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "rating", "value": 0}, "value", "bad_value"),
    ({"kind": "rating", "value": 6}, "value", "bad_value"),
    ({"kind": "rating", "value": 4.5}, "value", "bad_value"),
    ({"kind": "rating", "value": "4"}, "value", "bad_value"),
    ({"kind": "rating", "value": True}, "value", "bad_value"),
    ({"kind": "rating"}, "value", "bad_value"),
    ({"kind": "rating", "text": "five"}, "text", "invalid_input"),
    ({"kind": "thumb", "value": None}, "value", "bad_value"),
    ({"kind": "thumb", "value": True}, "value", "bad_value"),
    ({"kind": "edit"}, "text", "bad_value"),
    ({"kind": "edit", "text": ""}, "text", "bad_value"),
    ({"kind": "edit", "text": "x" * 100_001}, "text", "bad_value"),
    ({"kind": "edit", "text": 5}, "text", "bad_value"),
    ({"kind": "comment", "text": "x" * 10_001}, "text", "bad_value"),
    ({"kind": "comment", "text": "", "retracted": True}, "text", "bad_value"),
    ({"kind": "comparison"}, "rejected_token", "bad_value"),
    ({"kind": "comparison", "rejected_token": ""}, "rejected_token", "bad_value"),
    ({"kind": "comment", "text": "x", "retracted": "yes"}, "retracted", "invalid_input"),
]


async def test_wrong_values_are_refused_by_name(gateway: GatewayHarness) -> None:
    token = (await gateway.choice())["feedback_token"]
    for body, param, code in WRONG:
        assert refusal(await send(gateway, token=token, **body)) == (400, param, code), body
    half = b'{"token": "%s", "kind": "comment", "text": "\\ud83d"}' % token.encode()
    answer = await gateway.http.post("/v1/feedback", content=half, headers={"Content-Type": "application/json"})
    assert refusal(answer) == (400, "text", "bad_value")
    unknown = b'{"token": "%s", "kind": "\\ud83d", "\\ud83d": 1}' % token.encode()
    answer = await gateway.http.post("/v1/feedback", content=unknown, headers={"Content-Type": "application/json"})
    assert refusal(answer) == (400, "kind", "unknown_kind")
    assert gateway.bus.events == []


async def test_two_requests_of_one_prompt_can_be_compared(gateway: GatewayHarness) -> None:
    first = await gateway.choice(user="alice")
    second = await gateway.choice(user="alice")
    answer = await send(
        gateway, token=second["feedback_token"], kind="comparison", rejected_token=first["feedback_token"]
    )
    assert answer.status_code == 200
    (event,) = gateway.bus.feedback
    assert (event.rollout_id, event.body) == (
        second["rollout_id"],
        Comparison(rejected_rollout_id=first["rollout_id"]),
    )


async def test_what_cannot_be_compared(gateway: GatewayHarness) -> None:
    mine = await gateway.choice(user="alice")
    token = mine["feedback_token"]
    bob = await gateway.choice(user="bob")
    elsewhere = await gateway.choice("What is rain?", user="alice")
    head, _, signature = elsewhere["feedback_token"].split(".")
    forged = f"{head}.{token.split('.')[1]}.{signature}"
    cases = [
        (bob["feedback_token"], 403, "other_rater"),
        (elsewhere["feedback_token"], 400, "other_prompt"),
        (token, 400, "self_comparison"),
        (forged, 401, "feedback_token_invalid"),
        ("x.y.z", 401, "feedback_token_invalid"),
    ]
    for rejected, status, code in cases:
        answer = await send(gateway, token=token, kind="comparison", rejected_token=rejected)
        assert refusal(answer) == (status, "rejected_token", code)
    assert gateway.bus.events == []


async def test_the_same_again_while_the_first_still_runs(gateway: GatewayHarness) -> None:
    token = (await gateway.choice())["feedback_token"]
    gateway.bus.delay_s = 0.3
    body = {"token": token, "kind": "rating", "value": 2, "feedback_id": "impatient"}
    answers = await asyncio.gather(*(send(gateway, **body) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(gateway.bus.events) == 1


async def test_the_same_again_after_a_restart_answers_what_the_store_knows(tmp_path: Path) -> None:
    body = {"kind": "rating", "value": 2, "feedback_id": "before"}
    async with running_gateway(tmp_path) as gateway:
        loop = await gateway.choice(user="alice")
        first = await send(gateway, token=loop["feedback_token"], **body)
        (event,) = gateway.bus.feedback
    async with running_gateway(tmp_path) as gateway:
        gateway.learner.feedback["before"] = learner_pb2.GetFeedbackResponse(
            feedback_id="before",
            state=learner_pb2.FEEDBACK_STATE_JOINED,
            rollout_id=event.rollout_id,
            rater_id=event.rater_id,
            kind=feedback_pb2.FEEDBACK_KIND_RATING,
            revision=event.revision,
        )
        again = await send(gateway, token=loop["feedback_token"], **body)
        assert again.json() == first.json()
        assert [repeated.revision for repeated in gateway.bus.feedback] == [event.revision]
        other_kind = await send(gateway, token=loop["feedback_token"], kind="thumb", value="up", feedback_id="other")
        assert other_kind.status_code == 200
        await gateway.learner_server.stop(None)
        away = await send(gateway, token=loop["feedback_token"], kind="thumb", value="up", feedback_id="third")
        assert away.status_code == 200, "a learner that is away holds nobody up"


async def test_a_rater_who_floods_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, access={"rater_statements_per_s": 0.01, "rater_burst": 3}) as gateway:
        token = (await gateway.choice(user="eve"))["feedback_token"]
        kept = await gateway.thumb(token, "up", feedback_id="kept")
        statuses = [(await gateway.thumb(token, "up")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = await gateway.thumb((await gateway.choice(user="eve"))["feedback_token"], "up")
        assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 100
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert (await gateway.thumb(token, "up", feedback_id="kept")).json() == kept.json(), "the same again is free"
        other = (await gateway.choice(user="bob"))["feedback_token"]
        assert (await gateway.thumb(other, "down")).status_code == 200
        assert len(gateway.bus.events) == 4
        async with httpx.AsyncClient(base_url=gateway.control_url) as control:
            text = (await control.get("/metrics")).text
    for outcome, count in (("accepted", 4), ("limited", 2), ("repeated", 1)):
        assert f'thumbloop_gateway_feedback_total{{kind="thumb",outcome="{outcome}"}} {count}.0' in text


async def test_refusals_are_counted_by_kind_and_by_what_they_are(gateway: GatewayHarness) -> None:
    token = (await gateway.choice())["feedback_token"]
    await send(gateway, token=token, kind="rating", value=9)
    await send(gateway, token=token + "x", kind="rating", value=3)
    await send(gateway, token=token, kind="applause")
    await gateway.http.get("/v1/feedback/nothing", headers={"Authorization": f"Feedback {token}"})
    async with httpx.AsyncClient(base_url=gateway.control_url) as control:
        text = (await control.get("/metrics")).text
    for line in (
        'thumbloop_gateway_feedback_total{kind="rating",outcome="rejected"} 1.0',
        'thumbloop_gateway_feedback_total{kind="rating",outcome="denied"} 1.0',
        'thumbloop_gateway_feedback_total{kind="unknown",outcome="rejected"} 1.0',
        'thumbloop_gateway_feedback_states_total{state="unknown"} 1.0',
    ):
        assert line in text


async def test_the_description_shows_each_kind_with_an_example(gateway: GatewayHarness) -> None:
    description = (await gateway.http.get("/openapi.json")).json()
    body = description["paths"]["/v1/feedback"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["discriminator"]["propertyName"] == "kind"
    assert set(body["discriminator"]["mapping"]) == set(KINDS)
    for kind, reference in body["discriminator"]["mapping"].items():
        schema = description["components"]["schemas"][reference.rpartition("/")[2]]
        assert schema["example"]["kind"] == kind
        assert schema["description"] and schema["additionalProperties"] is False
