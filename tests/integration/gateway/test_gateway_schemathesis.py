"""The OpenAPI description against the gateway that it describes, by schemathesis.

Plan: a gateway on real ports, public and control; schemathesis sends what the description allows and what it forbids
(its examples, boundary values of every parameter, drawn bodies), and half of the time a real feedback token, the real
model's name or a known id is put in, so that the requests get past the first check. The seed is fixed.
Pass: no answer is a 5xx, has a status that the description does not name, another content type or another shape.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis import hooks
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from services.shared.access import Scope
from tests.support.access import live_key
from tests.support.gateway import GatewayHarness, running_gateway

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
UNLIMITED = {"rater_burst": 10_000, "rater_read_burst": 10_000}
SHORT_S = 0.05
"""Life of a stream of releases."""
EXAMPLES = 40
"""Drawn requests an operation, beside those that the description itself brings."""


def settings(headers: dict[str, str]) -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "seed": 20261122,
            "max-failures": 20,
            "request-timeout": 20.0,
            "headers": headers,
            "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
            "phases": {"stateful": {"enabled": False}},
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "no-shrink": True, "database": "none"},
        }
    )


class RealValues:
    """Puts values that the gateway knows where the drawn ones are well-formed but unknown."""

    def __init__(self, loops: list[dict[str, Any]], feedback_id: str) -> None:
        self._turns: Iterator[bool] = cycle([True, False])
        self._numbers = count()
        """Each feedback id is sent twice: again, or for another statement."""
        self._loops = loops
        self._feedback_id = feedback_id

    def put_into(self, case: Any) -> None:
        """Changes every other request."""
        if not next(self._turns):
            return
        if isinstance(case.body, dict):
            for name, loop in (("token", self._loops[0]), ("rejected_token", self._loops[1])):
                if isinstance(case.body.get(name), str) and case.body[name]:
                    case.body[name] = loop["feedback_token"]
            if isinstance(case.body.get("rollout_id"), str):
                case.body["rollout_id"] = self._loops[0]["rollout_id"]
            if isinstance(case.body.get("feedback_id"), str) and case.body["feedback_id"].isalnum():
                case.body["feedback_id"] = f"mine-{next(self._numbers) // 2}"
            if isinstance(case.body.get("model"), str):
                case.body["model"] = "thumbloop"
        if case.path == "/v1/feedback/{feedback_id}":
            case.path_parameters = {"feedback_id": self._feedback_id}
            case.headers = {**(case.headers or {}), "Authorization": f"Feedback {self._loops[0]['feedback_token']}"}


def failures(url: str, *, headers: dict[str, str], values: RealValues) -> tuple[list[str], Counter[str]]:
    """What schemathesis found, in words, and how many requests each operation got."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=settings(headers), headers=headers)

    def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
        values.put_into(case)

    found: list[str] = []
    sent: Counter[str] = Counter()
    schemathesis.hook(before_call)
    try:
        _run(schema, found, sent)
    finally:
        hooks.unregister(before_call)
    return found, sent


def _run(schema: Any, found: list[str], sent: Counter[str]) -> None:
    for event in from_schema(schema).execute():
        if isinstance(event, (events.NonFatalError, events.FatalError)):
            found.append(f"schemathesis itself: {getattr(event, 'value', None) or getattr(event, 'exception', None)!r}")
        if isinstance(event, events.ScenarioFinished):
            sent[event.recorder.label] += len(event.recorder.interactions)
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.status is Status.FAILURE and check.failure_info is not None:
                        failure = check.failure_info
                        found.append(f"{event.recorder.label}: {failure.failure}\n{failure.code_sample}")


async def real_values(gateway: GatewayHarness) -> RealValues:
    """Two answers to one prompt, and a statement on the first."""
    response = await gateway.chat(n=2, user="alice")
    loops = [choice["thumbloop"] for choice in response.json()["choices"]]
    sent = await gateway.thumb(loops[0]["feedback_token"], "up")
    return RealValues(loops, sent.json()["feedback_id"])


@pytest.mark.timeout(180)
async def test_the_public_port_answers_as_it_is_described(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, access=UNLIMITED, release_stream_s=SHORT_S) as gateway:
        values = await real_values(gateway)
        found, sent = await asyncio.to_thread(failures, gateway.url, headers={}, values=values)
        taken = len(gateway.bus.events)
    assert found == [], "\n\n".join(found)
    assert {"POST /v1/feedback", "GET /v1/feedback/{feedback_id}", "GET /v1/releases/events"} <= set(sent)
    assert all(count > 0 for count in sent.values()), sent
    assert taken > 10, "well-formed feedback got through"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("administrator", [True, False], ids=["administrator", "anybody"])
async def test_the_control_port_answers_as_it_is_described(tmp_path: Path, administrator: bool) -> None:
    minted, key = live_key(Scope.ADMIN)
    headers = {"Authorization": f"Bearer {minted.text}"}
    async with running_gateway(tmp_path, keys=[key], release_stream_s=SHORT_S) as gateway:
        values = await real_values(gateway)
        if administrator:
            found, sent = await asyncio.to_thread(failures, gateway.control_url, headers=headers, values=values)
            assert found == [], "\n\n".join(found)
            assert "GET /metrics" in sent
            return
        async with httpx.AsyncClient(base_url=gateway.control_url) as control:
            description = (await control.get("/openapi.json", headers=headers)).json()
            for path, operations in description["paths"].items():
                for method in operations:
                    status = (await control.request(method, path)).status_code
                    assert status == (200 if path in {"/healthz", "/readyz", "/metrics"} else 401), (method, path)
