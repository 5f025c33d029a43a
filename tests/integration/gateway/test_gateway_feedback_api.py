"""A thumb over HTTP, from the token of an answer to what became of it.

Plan: chat, then send thumbs, good and bad ones, and ask for their states, while the log and the learner come and go.
Pass: 2xx only for what the log has, with the facts of the token; everything else a clear refusal that writes nothing.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.learner.v1 import learner_pb2

from services.shared.domain.errors import Unavailable
from services.shared.domain.feedback import FeedbackKind, Thumb
from tests.support.gateway import GatewayHarness, running_gateway


def asking(token: str) -> dict[str, str]:
    return {"Authorization": f"Feedback {token}"}


async def test_a_thumb_becomes_an_event(gateway: GatewayHarness) -> None:
    loop = await gateway.choice(user="alice")
    answer = await gateway.thumb(loop["feedback_token"], "up")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"feedback_id", "state", "revision"} and body["state"] == "accepted"
    (event,) = gateway.bus.feedback
    assert gateway.bus.events[0].key == loop["rollout_id"] == event.rollout_id
    assert event.feedback_id == body["feedback_id"]
    assert event.revision == body["revision"] == int(event.accept_time.timestamp() * 1000)
    assert (event.kind, event.body, event.retracted) == (FeedbackKind.THUMB, Thumb(up=True), False)
    assert event.prompt_id == loop["prompt_id"]
    assert event.rater_id == gateway.generator.requests[0].rater_id
    assert event.meta.deployment == "test" and event.meta.tenant == "default"
    assert event.token_key_id.startswith("k")


async def test_a_retraction_becomes_an_event(gateway: GatewayHarness) -> None:
    loop = await gateway.choice()
    assert (await gateway.thumb(loop["feedback_token"], None, retracted=True)).status_code == 200
    (event,) = gateway.bus.feedback
    assert event.retracted and event.body is None


async def test_sending_again_answers_the_same_and_writes_once(gateway: GatewayHarness) -> None:
    token = (await gateway.choice())["feedback_token"]
    first = await gateway.thumb(token, "down", feedback_id="mine-1")
    again = await gateway.thumb(token, "down", feedback_id="mine-1")
    later = await gateway.thumb(token, "down", feedback_id="mine-1", revision=first.json()["revision"] + 1)
    assert first.json() == again.json() == later.json()
    assert len(gateway.bus.events) == 1
    other = await gateway.thumb(token, "up", feedback_id="mine-1")
    assert other.status_code == 409 and other.json()["error"]["param"] == "feedback_id"
    assert len(gateway.bus.events) == 1


async def test_another_rater_may_use_the_same_id(gateway: GatewayHarness) -> None:
    for user in ("alice", "bob"):
        token = (await gateway.choice(user=user))["feedback_token"]
        assert (await gateway.thumb(token, "up", feedback_id="mine-1")).status_code == 200
    assert len({event.rater_id for event in gateway.bus.feedback}) == 2


async def test_refusals_write_nothing(gateway: GatewayHarness) -> None:
    loop = await gateway.choice()
    other = await gateway.choice()
    token = loop["feedback_token"]
    head, payload, signature = token.split(".")
    forged = f"{head}.{other['feedback_token'].split('.')[1]}.{signature}"
    far = 32503680000000
    cases: list[tuple[dict[str, object], int, str | None, str]] = [
        ({"token": forged, "kind": "thumb", "value": "up"}, 401, "token", "feedback_token_invalid"),
        ({"token": token[:-3], "kind": "thumb", "value": "up"}, 401, "token", "feedback_token_invalid"),
        ({"token": "x", "kind": "thumb", "value": "up"}, 401, "token", "feedback_token_invalid"),
        (
            {"token": token, "kind": "thumb", "value": "up", "rollout_id": other["rollout_id"]},
            403,
            "rollout_id",
            "other_rollout",
        ),
        ({"token": token, "kind": "applause", "value": 5}, 400, "kind", "unknown_kind"),
        ({"token": token, "kind": ["thumb"], "value": "up"}, 400, "kind", "unknown_kind"),
        ({"token": token, "value": "up"}, 400, "kind", "missing"),
        ({"token": token, "kind": "thumb", "value": "sideways"}, 400, "value", "bad_value"),
        ({"token": token, "kind": "thumb"}, 400, "value", "bad_value"),
        ({"token": token, "kind": "thumb", "value": "up", "revision": far}, 400, "revision", "revision_ahead"),
        ({"token": token, "kind": "thumb", "value": "up", "revision": 0}, 400, "revision", "invalid_input"),
        ({"token": token, "kind": "thumb", "value": "up", "feedback_id": "a b"}, 400, "feedback_id", "invalid_input"),
        ({"token": token, "kind": "thumb", "value": "up", "extra": 1}, 400, "extra", "invalid_input"),
        ({"kind": "thumb", "value": "up"}, 400, "token", "missing"),
    ]
    for body, status, param, code in cases:
        answer = await gateway.http.post("/v1/feedback", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (status, param, code), (body, answer.text)
        assert set(error) == {"message", "type", "param", "code"}
    assert payload and gateway.bus.events == []


async def test_not_acknowledged_is_never_a_2xx(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, spool={"enabled": False}) as gateway:
        token = (await gateway.choice())["feedback_token"]
        gateway.bus.failure = Unavailable("broker away")
        refused = await gateway.thumb(token, "up", feedback_id="again")
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert "again" in refused.json()["error"]["message"]
        gateway.bus.failure = None
        assert (await gateway.thumb(token, "up", feedback_id="again")).status_code == 200
        assert len(gateway.bus.events) == 1


async def test_state_follows_the_learner(gateway: GatewayHarness) -> None:
    token = (await gateway.choice(user="alice"))["feedback_token"]
    sent = (await gateway.thumb(token, "up")).json()
    path = f"/v1/feedback/{sent['feedback_id']}"
    assert (await gateway.http.get(path, headers=asking(token))).json()["state"] == "accepted"
    (event,) = gateway.bus.feedback
    gateway.learner.feedback[event.feedback_id] = learner_pb2.GetFeedbackResponse(
        feedback_id=event.feedback_id,
        state=learner_pb2.FEEDBACK_STATE_JOINED,
        rollout_id=event.rollout_id,
        rater_id=event.rater_id,
        kind=feedback_pb2.FEEDBACK_KIND_THUMB,
        revision=event.revision,
        trained_into=["p-0001-000002-bbbbbbbb"],
        reward_model_versions=["rm-0001-000001-cccccccc"],
    )
    assert (await gateway.http.get(path, headers=asking(token))).json() == {
        "feedback_id": event.feedback_id,
        "state": "joined",
        "reason": "",
        "rollout_id": event.rollout_id,
        "kind": "thumb",
        "revision": event.revision,
        "trained_into": ["p-0001-000002-bbbbbbbb"],
        "trained_into_through_reward_model": [],
        "reward_model_versions": ["rm-0001-000001-cccccccc"],
    }
    another = (await gateway.choice(user="bob"))["feedback_token"]
    assert (await gateway.http.get(path, headers=asking(another))).status_code == 403


async def test_state_without_learner(gateway: GatewayHarness) -> None:
    token = (await gateway.choice())["feedback_token"]
    sent = (await gateway.thumb(token, "up")).json()
    unknown = await gateway.http.get("/v1/feedback/unknown", headers=asking(token))
    assert unknown.status_code == 404
    await gateway.learner_server.stop(None)
    known = await gateway.http.get(f"/v1/feedback/{sent['feedback_id']}", headers=asking(token))
    assert known.json()["state"] == "accepted"
    unknown = await gateway.http.get("/v1/feedback/unknown", headers=asking(token))
    assert unknown.status_code == 503 and int(unknown.headers["retry-after"]) >= 1


@pytest.mark.parametrize("header", ["", "Feedback", "Bearer x", "Feedback x.y.z"])
async def test_state_needs_a_token(gateway: GatewayHarness, header: str) -> None:
    answer = await gateway.http.get("/v1/feedback/any", headers={"Authorization": header})
    assert answer.status_code == 401
    expected = 'Bearer realm="thumbloop", error="invalid_token"' if header == "Bearer x" else "Feedback"
    assert answer.headers["www-authenticate"] == expected


async def test_metrics_are_on_the_control_port_alone(gateway: GatewayHarness) -> None:
    token = (await gateway.choice())["feedback_token"]
    await gateway.thumb(token, "up")
    async with httpx.AsyncClient(base_url=gateway.control_url) as control:
        text = (await control.get("/metrics")).text
        assert (await control.post("/v1/chat/completions", json={})).status_code == 401
        assert (await control.get("/readyz")).status_code == 200
    assert 'thumbloop_gateway_feedback_total{kind="thumb",outcome="accepted"} 1.0' in text
    assert 'thumbloop_gateway_requests_total{route="/v1/chat/completions",status="200"} 1.0' in text
    assert (await gateway.http.get("/metrics")).status_code == 404
